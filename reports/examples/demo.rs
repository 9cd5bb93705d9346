//! Writes a report of made-up results, to look at the page without training anything:
//! `cargo run --release -p rqlab-reports --example demo -- FOLDER`.
#![allow(clippy::print_stdout, missing_docs, reason = "an example speaks to its user")]

#[path = "demo/invent.rs"]
mod invent;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder to write to")?;
    let results = invent::results()?;
    for sentence in rqlab_reports::verdicts(&results) {
        println!("{sentence}");
    }
    let written = rqlab_reports::write(&results, folder.as_ref())?;
    println!("{}", written.page.display());
    Ok(())
}
