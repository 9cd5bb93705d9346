//! The machine: its processor, its clock, and how much of it others use.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The processor's name, where the system tells (Linux).
pub fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split(':').nth(1))?;
    Some(name.trim().to_owned())
}

/// Its cores, as far as this process may use them.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Its name.
pub fn host() -> String {
    const LONGEST: usize = 64;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().chars().take(LONGEST).collect())
}

/// What the numbers of processes mean something in: this boot of the machine, and this process's namespace, where the system tells
/// (Linux).
pub fn kernel() -> Option<&'static str> {
    static KERNEL: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        Some(format!("{} {}", boot.trim(), namespace.display()))
    };
    KERNEL.get_or_init(look).as_deref()
}

/// When the process of a number began, in ticks since the machine did; none if there is none, or if it has ended and waits for its
/// parent to notice (Linux).
pub fn process_start(pid: u32) -> Option<u64> {
    start_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Of the text of `/proc/PID/stat`: after the name, which may hold anything, the state, and 19 fields later the start.
fn start_of(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let is_alive = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| is_alive)
}

/// Seconds from a moment until now, as this machine's clock says; none if it lies ahead.
pub fn seconds_since(moment: SystemTime) -> Option<f64> {
    SystemTime::now().duration_since(moment).ok().map(|since| since.as_secs_f64())
}

/// Now, in UTC: `2026-11-22T05:35:48Z`.
pub fn now() -> String {
    civil_time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a date and time in UTC, `2026-11-22T05:35:48Z`.
pub fn civil_time(seconds: u64) -> String {
    let rest = seconds % DAY;
    format!("{}T{:02}:{:02}:{:02}Z", civil_day(seconds), rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since 1970 as a day of the Gregorian calendar, `2026-11-22`. Days are counted from 1 March of year 0, so that the
/// leap day is the last of its year (Hinnant, "chrono-compatible low-level date algorithms").
pub fn civil_day(seconds: u64) -> String {
    let days = seconds / DAY + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// What the processors have done until now, in ticks of the system's clock, where the system tells (Linux).
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// For this process, and the processes it waited for.
    own: u64,
    /// For all processes.
    busy: u64,
    /// In all, idle time included, over all processors.
    all: u64,
}

impl Usage {
    /// Until now.
    pub fn now() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/stat").ok()?;
        let machine = std::fs::read_to_string("/proc/stat").ok()?;
        Self::of(&own, &machine)
    }

    /// Of the texts of `/proc/self/stat` and `/proc/stat`.
    fn of(own: &str, machine: &str) -> Option<Self> {
        // The name of the program, which may hold anything, ends with the last bracket; 11 fields later the times begin.
        let times = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
        let own = times.map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
        let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, waiting for disks, interrupts (two), time that a virtual machine was denied
        let ticks: Vec<u64> = line.split_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect::<Option<_>>()?;
        let all = ticks.iter().sum::<u64>();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { own, busy: all - idle, all })
    }

    /// The share of the machine's processors that other processes, or other machines on the same processors, had from then
    /// until `later`; none if the clock has not moved.
    pub fn others_until(&self, later: &Self) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|&all| all > 0)?;
        let others = (later.busy.saturating_sub(self.busy)).saturating_sub(later.own.saturating_sub(self.own));
        Some(others as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (59 * DAY, "1970-03-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(civil_time(seconds), wanted);
            assert_eq!(civil_day(seconds), wanted[..10]);
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_until_it_has_ended() {
        let stat = |state: &str| format!("7 (rq) lab) {state} 1 7 7 0 -1 4194560 1 0 0 0 5 20 0 0 20 0 4 0 100 1 1");
        assert_eq!([start_of(&stat("S")), start_of(&stat("T"))], [Some(100); 2]);
        assert_eq!([start_of(&stat("Z")), start_of("")], [None; 2]);
    }

    #[test]
    fn the_load_of_others_is_what_is_not_our_own() {
        let own = |user: u64| format!("7 (rq) lab) S 1 7 7 0 -1 4194560 1 0 0 0 {user} 20 0 0 20 0 4 0 100 1 1");
        let machine = |user: u64, idle: u64| format!("cpu  {user} 0 100 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n");
        let before = Usage::of(&own(100), &machine(1000, 5000)).unwrap();
        // 200 ticks, half of them idle; of the rest 60 were ours.
        let after = Usage::of(&own(160), &machine(1100, 5100)).unwrap();
        assert_eq!(before.others_until(&after), Some(0.2));
        assert_eq!(before.others_until(&before), None);
        assert!(Usage::of("", "").is_none());
    }
}
