//! Options from the environment of the program.

use std::process::{Command, Stdio};

use tabi::cli;

use crate::scratch::{Program, Scratch, bare, program};
use crate::stage::{connect, nobody_listens};

/// What `tabi --check` says with these variables and options, and its exit status.
fn check(environment: &[(&str, &str)], options: &[&str]) -> (i32, String) {
    let mut command = bare();
    command.args(options).arg("--check").envs(environment.iter().copied());
    said(command)
}

fn said(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_option_has_a_variable_that_is_named_after_it() {
    let mut command = cli::command();
    command.build();
    // --help and --version are for people at a terminal.
    let options = command
        .get_arguments()
        .filter(|option| !["help", "version"].contains(&option.get_id().as_str()));
    for option in options {
        let expected = format!("TABI_{}", option.get_id().as_str().to_uppercase());
        let variable = option.get_env().unwrap_or_else(|| panic!("{option} has no variable"));
        assert_eq!(variable.to_str(), Some(&*expected));
    }
}

#[test]
fn where_to_listen_and_whom_to_serve_come_from_the_environment() {
    let mut command = bare();
    command
        .stdout(Stdio::null())
        .envs([("TABI_LISTEN", "127.0.0.1:0"), ("TABI_ALLOW_FROM", "127.0.0.0/8,192.168.0.0/16")]);
    let mut program = Program::spawn(command);
    program.log_line("serving clients from 127.0.0.0/8, 192.168.0.0/16");
    connect(program.address);
}

#[test]
fn the_command_line_wins() {
    let (status, told) = check(&[("TABI_GRACE", "5"), ("TABI_LISTEN", "nowhere")], &["1080"]);
    assert_eq!((status, &*told), (0, ""));
    let (_socket, nobody) = nobody_listens();
    let nobody = nobody.to_string();
    let mut command = bare();
    command.args(["--probe", &nobody]).env("TABI_CHECK", "true");
    assert!(said(command).1.contains("cannot connect"));
    assert_eq!(check(&[("TABI_QUIET", "true")], &["-v"]), (0, String::new()));
    let (status, told) = check(&[("TABI_QUIET", "true"), ("TABI_VERBOSE", "true")], &[]);
    assert_eq!(status, 2);
    assert!(told.contains("TABI_QUIET cannot be used with TABI_VERBOSE"), "{told}");
}

#[test]
fn a_flag_is_true_or_false_and_an_empty_variable_says_nothing() {
    let mut loud = bare();
    loud.stdout(Stdio::null()).args(["127.0.0.1:0"]);
    loud.envs([("TABI_QUIET", "false"), ("TABI_CHECK", "0"), ("TABI_PROBE", "no")]);
    Program::spawn(loud);
    for variable in ["TABI_QUIET", "TABI_VERBOSE", "TABI_GRACE", "TABI_RULES", "TABI_LISTEN"] {
        assert_eq!(check(&[(variable, "")], &[]), (0, String::new()), "{variable}");
    }
    let (status, told) = check(&[("TABI_QUIET", "rather")], &[]);
    assert_eq!(status, 2);
    assert!(told.contains("'rather'") && told.contains("variable TABI_QUIET"), "{told}");
}

#[test]
fn an_error_names_the_variable_that_the_value_comes_from() {
    for (variable, value, bad) in [
        ("TABI_GRACE", "soon", "soon"),
        ("TABI_LISTEN", "1080,localhost", "localhost"),
        ("TABI_ALLOW_FROM", "10.0.0.0/8,everyone", "everyone"),
        ("TABI_VERBOSE", "very", "very"),
        ("TABI_RULES", "/nowhere/rules", "/nowhere/rules"),
        ("TABI_USERS", "/nowhere/users", "/nowhere/users"),
    ] {
        let (status, told) = check(&[(variable, value)], &[]);
        assert_eq!(status, 2, "{told}");
        assert!(told.contains(variable) && told.contains(bad), "{told}");
    }
    let (_, told) = check(&[("TABI_GRACE", "5")], &["--grace", "soon"]);
    assert!(!told.contains("TABI_GRACE"), "{told}");
}

#[test]
fn a_carriage_return_in_a_value_is_shown() {
    for (variable, value) in [
        ("TABI_LISTEN", "1080\r"),
        ("TABI_LISTEN", "1080,1081\r"),
        ("TABI_LISTEN", "[fe80::1%nowhere0\r]:1080"),
        ("TABI_GRACE", "10\r"),
        ("TABI_QUIET", "true\r"),
        ("TABI_RULES", "/nowhere/rules\r"),
        ("TABI_USERS", "/nowhere/users\r"),
        ("TABI_UPSTREAM", "socks5://192.0.2.1:1080\r"),
    ] {
        let (status, told) = check(&[(variable, value)], &[]);
        assert_eq!(status, 2, "{told}");
        assert!(!told.contains('\r'), "{told:?}");
        assert!(told.contains(r"\r") || variable == "TABI_UPSTREAM", "{told}");
        assert!(told.contains(variable), "{told}");
    }
    let (_, told) = check(&[("TABI_LISTEN", "1080\r")], &[]);
    assert!(told.contains(r"'1080\r'") && told.contains("ends with a carriage return"), "{told}");
}

#[test]
fn an_unknown_variable_is_warned_of_and_stops_nothing() {
    for variable in ["TABI_USER", "TABI_MAX_CONECTIONS", "TABI_PORT", "TABI_VERSION", "TABI_"] {
        let (status, told) = check(&[(variable, "1081")], &[]);
        assert_eq!(status, 0, "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&format!("variable {variable} is unknown")), "{told}");
        assert!(told.contains("tabi --help"), "{told}");
    }
    let program = Program::start_with(&[("TABI_USER", "users"), ("TABI_GRACE", "1")], &[]);
    let told = program.log_so_far();
    assert!(told.contains("TABI_USER ") && !told.contains("TABI_GRACE"), "{told}");
}

#[test]
fn a_container_sends_other_machines_to_its_host() {
    let mut program = Program::start_with(&[("container", "podman")], &["0.0.0.0:0"]);
    program.log_line("in a container: other machines use it at the address of its host");
    let told = program.log_line("try it on the host");
    assert!(told.contains("curl -x socks5h://localhost:"), "{told}");
}

#[test]
fn what_kubernetes_tells_of_a_service_named_tabi_is_no_misspelling() {
    for (variable, value) in [
        ("TABI_PORT", "tcp://10.0.0.1:1080"),
        ("TABI_PORT_1080_TCP_ADDR", "10.0.0.1"),
        ("TABI_SERVICE_HOST", "10.0.0.1"),
        ("TABI_SOCKS_PORT", "tcp://10.0.0.1:1080"),
        ("TABI_SOCKS_PORT_1080_TCP_PROTO", "tcp"),
        ("TABI_SOCKS_SERVICE_PORT_SOCKS", "1080"),
        ("TABI_NAME", "/web/tabi"),
        ("TABI_ENV_PATH", "/bin"),
    ] {
        assert_eq!(check(&[(variable, value)], &[]), (0, String::new()), "{variable}");
    }
}

#[test]
fn an_interface_that_may_still_come_is_no_wrong_option() {
    let (status, told) = check(&[("TABI_LISTEN", "[fe80::1%nowhere0]:1080")], &[]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("no interface nowhere0") && told.contains("TABI_LISTEN"), "{told}");
}

#[test]
fn a_password_in_the_environment_is_not_shown() {
    for (option, url) in [("--help", "socks5://alice:secret@proxy:1"), ("--check", "x:secret@y")] {
        let output = bare().arg(option).env("TABI_UPSTREAM", url).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("TABI_UPSTREAM") && !told.contains("secret"), "{told}");
    }
}

#[test]
fn a_file_of_the_service_manager_may_be_readable_for_others() {
    let users = Scratch::new(b"alice:open sesame\n");
    users.set_mode(0o644);
    let folder = std::env::temp_dir();
    let check = |folder: &str| {
        let mut command = program(&["--users", users.path(), "--check"]);
        command.env("CREDENTIALS_DIRECTORY", folder);
        said(command)
    };
    assert_eq!(check(folder.to_str().unwrap()), (0, String::new()));
    for elsewhere in ["/nowhere", "", "/", "."] {
        let (status, told) = check(elsewhere);
        assert_eq!(status, 2, "{elsewhere}");
        assert!(told.contains("mode 0644") && told.contains("run: chmod 600"), "{told}");
    }
}
