//! Writes the man pages, from the Markdown in scripts/docs, and the completions for shells, from the command
//! line itself: `cargo run --example pages`.

use std::path::Path;
use std::{fs, io};

mod page;

fn main() -> io::Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, content) in page::all() {
        fs::write(top.join(path), content)?;
    }
    Ok(())
}
