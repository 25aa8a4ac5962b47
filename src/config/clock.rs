//! The calendar, and the time of `${now:...}`.

use super::tree::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// The present in UTC, in a format of `strftime`: `%Y %m %d %H %M %S %y %j %f %%`.
///
/// # Errors
/// Another directive.
pub(super) fn now(format: &str) -> Result<Value, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write(format, since.as_secs(), since.subsec_micros()).map(Value::Text)
}

/// A second in UTC; month and days count from 1.
pub(crate) struct Date {
    pub year: u64,
    pub month: u64,
    pub day: u64,
    pub day_of_year: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
}

impl Date {
    /// So many seconds after the start of 1970.
    pub fn at(seconds: u64) -> Self {
        let mut days = seconds / 86400;
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut year = 1970;
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let day_of_year = days + 1;
        let mut month = 0;
        for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
            month += 1;
            if days < length {
                break;
            }
            days -= length;
        }
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        Self { year, month, day: days + 1, day_of_year, hour, minute, second }
    }
}

fn write(format: &str, seconds: u64, micros: u32) -> Result<String, String> {
    let Date { year, month, day, day_of_year, hour, minute, second } = Date::at(seconds);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => text.push_str(&format!("{year:04}")),
            Some('y') => text.push_str(&format!("{:02}", year % 100)),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('j') => text.push_str(&format!("{day_of_year:03}")),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('f') => text.push_str(&format!("{micros:06}")),
            Some('%') => text.push('%'),
            other => return Err(format!("'%{}' in '{format}' is not known", other.map_or(String::new(), String::from))),
        }
    }
    Ok(text)
}

#[test]
fn seconds_are_written_as_dates() {
    let time = |seconds| write("%Y.%m.%d.%H.%M.%S %j", seconds, 0).unwrap();
    assert_eq!(time(0), "1970.01.01.00.00.00 001");
    assert_eq!(time(951_782_399), "2000.02.28.23.59.59 059");
    assert_eq!(time(951_782_400), "2000.02.29.00.00.00 060");
    assert_eq!(time(951_827_696), "2000.02.29.12.34.56 060");
    assert_eq!(time(1_767_225_599), "2025.12.31.23.59.59 365");
    assert_eq!(time(1_795_641_121), "2026.11.25.21.12.01 329");
    assert_eq!(time(4_107_542_399), "2100.02.28.23.59.59 059");
    assert_eq!(time(4_107_542_400), "2100.03.01.00.00.00 060");
    assert!(write("%Q", 0, 0).is_err());
}
