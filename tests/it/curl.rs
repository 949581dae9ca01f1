//! Real curl against the built program.

use std::path::Path;
use std::process::Command;

#[test]
fn curl_tests() {
    let tabi = Path::new(env!("CARGO_BIN_EXE_tabi"));
    let origin = tabi.with_file_name("examples").join("origin");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/suites/curl");
    let mut command = Command::new("bash");
    command.arg(script).env("TABI", tabi);
    // `cargo test --test it` does not build the origin; the script then does.
    if origin.exists() {
        command.env("ORIGIN", origin);
    }
    let output = command.output().expect("bash runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
