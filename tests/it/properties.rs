//! What has to hold whatever tabi is given: the properties that the fuzzer tries, with the seeds of
//! the fuzzer, with octets like them, and with octets without any order. The octets are the same ones
//! each time.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::{PROPERTIES, hold};

/// Changed seeds, and octets without any order, that each property is tried with.
const CHANGED: usize = 2000;
const RANDOM: usize = 1000;

/// The most octets without any order.
const LONGEST: usize = 700;

/// Pseudo-random choices.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }

    fn octet(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// A part of `octets` that begins and ends anywhere.
    fn part<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let begin = self.below(octets.len() + 1);
        let length = self.below(octets.len() - begin + 1);
        &octets[begin..begin + length]
    }

    /// Changes octets in a few places.
    fn change(&mut self, octets: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..=self.below(3) {
            let place = self.below(octets.len() + 1);
            match self.below(5) {
                0 => octets.truncate(place),
                1 => octets.insert(place, self.octet()),
                2 if place < octets.len() => octets[place] = self.octet(),
                3 if place < octets.len() => octets[place] ^= 1 << self.below(8),
                _ => {
                    let other = self.below(others.len());
                    let part = self.part(&others[other]).to_vec();
                    octets.splice(place..place, part);
                }
            }
        }
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("seeds of {name}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Tries the property with `octets`, and shows them where it does not hold.
fn try_with(name: &str, octets: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hold(name, octets))) {
        eprintln!("{name} does not hold with b\"{}\"", octets.escape_ascii());
        resume_unwind(panic);
    }
}

fn check(name: &str) {
    let seeds = seeds(name);
    for seed in &seeds {
        try_with(name, seed);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..CHANGED {
        let mut octets = seeds[round % seeds.len()].clone();
        dice.change(&mut octets, &seeds);
        try_with(name, &octets);
    }
    for _ in 0..RANDOM {
        let length = dice.below(LONGEST);
        let octets: Vec<u8> = (0..length).map(|_| dice.octet()).collect();
        try_with(name, &octets);
    }
}

/// A test for each property.
macro_rules! properties {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

properties! {
    greeting credentials request reply answers datagram
    socks4 http_request http_body http_response proxy_header written
    negotiation status_request upstream_url rules_file users_file rules
}

#[test]
fn every_property_has_its_test_and_its_fuzz_target() {
    let names: Vec<&str> = PROPERTIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let targets: Vec<_> = manifest.split("[[bin]]").skip(1).collect();
    assert_eq!(targets.len(), names.len());
    for (target, name) in targets.iter().zip(names) {
        assert!(target.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
