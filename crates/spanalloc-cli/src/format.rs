//! Numbers for people.

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit that leaves a number of at least 1 (1 KB is 1024 bytes).
pub(crate) fn bytes(number: impl TryInto<u64>) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let unit =
        |shift: u32, name: &str| format!("{:.1} {name}", number as f64 / f64::from(1 << shift));
    match number {
        0..0x400 => format!("{number} B"),
        0x400..0x10_0000 => unit(10, "KB"),
        0x10_0000..0x4000_0000 => unit(20, "MB"),
        _ => unit(30, "GB"),
    }
}

pub(crate) fn seconds(number: f64) -> String {
    if number < 0.0995 { format!("{:.1} ms", number * 1e3) } else { format!("{number:.2} s") }
}

/// `parts` of `total` as a bar of `width` characters, each part drawn with its own character.
/// Nothing is drawn for what is left.
pub(crate) fn bar(parts: &[(usize, char)], total: usize, width: usize) -> String {
    let place = |sum: usize| -> usize {
        let cells = (sum as f64 / total.max(1) as f64 * width as f64).round();
        (cells as usize).min(width)
    };
    let mut drawn = String::new();
    let (mut sum, mut cells) = (0, 0);
    for (part, mark) in parts {
        sum += part;
        let end = place(sum);
        drawn.extend(std::iter::repeat_n(*mark, end - cells));
        cells = end;
    }
    drawn.extend(std::iter::repeat_n(' ', width - cells));
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0u64), "0");
        assert_eq!(count(999u64), "999");
        assert_eq!(count(1_234_567usize), "1,234,567");
        assert_eq!(bytes(1023u64), "1023 B");
        assert_eq!(bytes(1536u64), "1.5 KB");
        assert_eq!(bytes(64u64 << 20), "64.0 MB");
        assert_eq!(bytes(3u64 << 30), "3.0 GB");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(1.239), "1.24 s");
    }

    #[test]
    fn bars_keep_their_width() {
        assert_eq!(bar(&[(5, '#'), (2, '+'), (3, '.')], 10, 10), "#####++...");
        assert_eq!(bar(&[(1, '#')], 3, 6), "##    ");
        assert_eq!(bar(&[], 0, 3), "   ");
        assert_eq!(bar(&[(1, '#'), (1, '+'), (1, '.')], 3, 2).chars().count(), 2);
        assert_eq!(bar(&[(9, '#')], 3, 4), "####");
    }
}
