//! What the user sees in the terminal. Results go to standard output; errors, warnings and progress to standard error.

use crate::experiment::{Diagnostic, Invalid, Severity};
use crate::home::{HOME, at_home, named};
use crate::jobs::Stopped;
use anstyle::{AnsiColor, Style};
use rqlab_sdk::contracts::Progress;
use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    quiet: bool,
    out: bool,
    err: bool,
}

impl Ui {
    /// Colours where a terminal listens and `NO_COLOR` is not set; `quiet` leaves out all but results and errors.
    pub fn new(quiet: bool) -> Self {
        let allowed = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self { quiet, out: allowed && io::stdout().is_terminal(), err: allowed && io::stderr().is_terminal() }
    }

    /// Whether all but results and errors is left out.
    pub fn is_quiet(self) -> bool {
        self.quiet
    }

    /// A result, on standard output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(self, text: impl AsRef<str>) -> Result<(), Unwritten> {
        print(|out| writeln!(out, "{}", visible(text.as_ref())))
    }

    /// What a user may like to know, on standard error.
    pub fn note(self, text: impl AsRef<str>) {
        if !self.quiet {
            say(text);
        }
    }

    /// How far a long task is, on standard error: on a terminal in one line, else in a line now and then. What is done within a
    /// second is not spoken of.
    pub fn progress(self) -> Progress {
        const PATIENCE: Duration = Duration::from_secs(1);
        if self.quiet {
            return Progress::default();
        }
        let terminal = io::stderr().is_terminal();
        let pause = if terminal { Duration::from_millis(100) } else { Duration::from_secs(10) };
        // When the task began, and when it was last spoken of.
        let told: Mutex<Option<(Instant, Option<Instant>)>> = Mutex::new(None);
        Progress::new(move |what, done, all| {
            let now = Instant::now();
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let (begun, last) = *told.get_or_insert((now, None));
            if done == all {
                *told = None;
                if terminal && last.is_some() {
                    let _ = write!(io::stderr(), "\r\x1b[2K");
                }
            } else if now - last.unwrap_or(begun) >= if last.is_some() { pause } else { PATIENCE } {
                *told = Some((begun, Some(now)));
                let line = format!("{what}: {} of {}", thousands(done), thousands(all));
                let _ =
                    if terminal { write!(io::stderr(), "\r\x1b[2K{line}") } else { writeln!(io::stderr(), "{line}") };
            }
        })
    }

    /// What went wrong, on standard error.
    pub fn error(self, text: impl std::fmt::Display) {
        self.diagnostic(&Diagnostic::error(text.to_string()));
    }

    /// What a signal stopped, on standard error, and how it goes on.
    pub fn stopped(self, stopped: &Stopped) {
        let under_way = match stopped.under_way.as_slice() {
            [] => String::new(),
            names => format!(", {} under way", gathered(names)),
        };
        say(format!(
            "stopped with {} of {} jobs done{under_way}; finished stages and checkpoints are kept, and the same command \
             goes on: {}",
            stopped.done,
            stopped.jobs,
            own_command()
        ));
    }

    /// Work that goes on elsewhere, on standard error, and how it is found again.
    pub fn left(self) {
        say(format!(
            "the cluster goes on; the same command watches again: {}; `rqlab cancel EXPERIMENT` ends the work",
            own_command()
        ));
    }

    /// A complaint, on standard error. Warnings are left out if quiet.
    pub fn diagnostic(self, diagnostic: &Diagnostic) {
        if !(self.quiet && diagnostic.severity == Severity::Warning) {
            let text = diagnostic.render(self.err);
            say(format!("{}\n", text.lines().map(shortened).collect::<Vec<_>>().join("\n")));
        }
    }

    /// All complaints about an experiment, on standard error.
    pub fn invalid(self, invalid: &Invalid) {
        let (shown, more) = invalid.shown();
        shown.iter().chain(&more).for_each(|diagnostic| self.diagnostic(diagnostic));
    }

    /// Text that stands out on standard output.
    pub fn strong(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }

    /// Text that stands back on standard output.
    pub fn faint(self, text: &str) -> String {
        self.styled(Style::new().dimmed(), text)
    }

    /// Text in a colour on standard output.
    pub fn colour(self, colour: AnsiColor, text: &str) -> String {
        self.styled(Style::new().fg_color(Some(colour.into())), text)
    }

    fn styled(self, style: Style, text: &str) -> String {
        if self.out { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// The command line of this process, as a shell reads it.
fn own_command() -> String {
    let home = named().filter(|_| at_home("runs") != Path::new("runs"));
    let home = home.map(|home| format!("{HOME}={}", quoted(&home.to_string_lossy())));
    let words = env::args_os().map(|word| quoted(&word.to_string_lossy()));
    home.into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// A line on standard error, where the runner and its workers speak. Nobody may listen, and a log's disk may be full: what
/// cannot be said ends no work.
pub fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", visible(text.as_ref()));
}

/// A text from a file, a name or an error as a terminal may show it: control characters, by which it could be commanded, as
/// `\u{1b}`. Line ends and tabs stay, and so do colours, which the runner sets itself.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_control) {
        out.push_str(&rest[..at]);
        let colour = colour_at(&rest[at..]);
        let end = at + colour.map_or_else(|| rest[at..].chars().next().map_or(1, char::len_utf8), str::len);
        match colour {
            Some(colour) => out.push_str(colour),
            None => out.extend(rest[at..end].chars().flat_map(char::escape_unicode)),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A name from a file or from data within a line: all its control characters as `\u{a}`, line ends and colours, too.
pub fn in_line(name: &str) -> Cow<'_, str> {
    if !name.contains(char::is_control) {
        return Cow::Borrowed(name);
    }
    let escaped = |c: char| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(name.chars().map(escaped).collect())
}

/// The sequence that sets a colour (SGR), if a text begins with one.
fn colour_at(text: &str) -> Option<&str> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then(|| &text[..end + 3])
}

/// A line of a complaint, without the middle where it is very long: somebody may have given a file for a name.
fn shortened(line: &str) -> Cow<'_, str> {
    const LONGEST: usize = 1000;
    let length = line.chars().count();
    if length <= LONGEST {
        return Cow::Borrowed(line);
    }
    let part = |from: usize, to: usize| line.chars().skip(from).take(to - from).collect::<String>();
    let (head, tail) = (part(0, LONGEST / 2), part(length - LONGEST / 4, length));
    Cow::Owned(format!("{head} … ({} characters more) … {tail}", length - LONGEST / 2 - LONGEST / 4))
}

/// A result that could not be written: a full disk, or a pipe that nobody reads any more.
#[derive(Debug)]
pub struct Unwritten(pub io::Error);

/// Writes a result to standard output, all of it.
///
/// # Errors
/// It cannot be written.
pub fn print(write: impl FnOnce(&mut io::Stdout) -> io::Result<()>) -> Result<(), Unwritten> {
    let mut out = io::stdout();
    write(&mut out).and_then(|()| out.flush()).map_err(Unwritten)
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Seconds as people say them: `48 s`, `3 min 20 s`, `1 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// Bytes as people say them: `512 B`, `3.4 MiB`, `2.5 GiB`.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut size, mut unit) = (count as f64, "B");
    for larger in units.into_iter().take_while(|_| count >= 1024) {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") }
}

/// A number of things that have a plural by `s`: `1 thread`, `2 threads`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Names of stages, those that are alike as a number: `2 tokenizer jobs and prior`.
fn gathered(names: &[&str]) -> String {
    let mut of_each: Vec<(&str, usize)> = Vec::new();
    for name in names {
        match of_each.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => of_each.push((name, 1)),
        }
    }
    let one =
        |&(name, count): &(&str, usize)| if count == 1 { name.to_owned() } else { format!("{count} {name} jobs") };
    of_each.iter().map(one).collect::<Vec<_>>().join(" and ")
}

/// A number with a thin mark between thousands: `1,292,323`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_if_a_shell_would_change_it() {
        let words = ["--set", "quantizer.depth=2", "quantizer=rq(depth: 8)", "it's", ""];
        assert_eq!(words.map(quoted), ["--set", "quantizer.depth=2", "'quantizer=rq(depth: 8)'", "'it'\\''s'", "''"]);
    }

    #[test]
    fn a_text_cannot_command_the_terminal() {
        assert_eq!(visible("two\nlines\tof \u{1b}[1mtext\u{1b}[0m"), "two\nlines\tof \u{1b}[1mtext\u{1b}[0m");
        assert_eq!(visible("\u{1b}[2Jgone\u{1b}]0;title\u{7}"), "\\u{1b}[2Jgone\\u{1b}]0;title\\u{7}");
        assert_eq!(visible("\u{9b}31m\u{1b}[\r"), "\\u{9b}31m\\u{1b}[\\u{d}");
    }

    #[test]
    fn a_name_cannot_break_its_line() {
        assert_eq!(in_line("maine coon"), "maine coon");
        assert_eq!(in_line("two\nlines\tand \u{1b}[1mmore"), "two\\u{a}lines\\u{9}and \\u{1b}[1mmore");
    }

    #[test]
    fn a_very_long_line_loses_its_middle() {
        assert_eq!(shortened(&"x".repeat(1000)).len(), 1000);
        let cut = shortened(&format!("error: `{}`", "ä".repeat(1_000_000))).into_owned();
        assert!(cut.starts_with("error: `ä") && cut.ends_with("ä`") && cut.contains(" characters more"), "{cut}");
        assert!(cut.chars().count() < 1000);
    }

    #[test]
    fn things_are_counted() {
        let stages = ["tokenizer", "prior", "tokenizer"];
        assert_eq!(
            (gathered(&stages).as_str(), gathered(&stages[..2]).as_str()),
            ("2 tokenizer jobs and prior", "tokenizer and prior")
        );
        assert_eq!([0, 1, 2].map(|n| counted(n, "thread")), ["0 threads", "1 thread", "2 threads"]);
    }

    #[test]
    fn times_and_numbers_are_said_as_people_say_them() {
        assert_eq!(
            [0.25, 48.2, 200.0, 3900.0, 90_000.0].map(duration),
            ["0.2 s", "48 s", "3 min 20 s", "1 h 05 min", "1 d 1 h"]
        );
        assert_eq!([0, 999, 1000, 1_292_323].map(thousands), ["0", "999", "1,000", "1,292,323"]);
    }
}
