//! Sizes on command lines.

/// Bytes from `512M`, `1.5G`, `4096`: binary multiples.
///
/// # Errors
/// A sentence for the command line.
pub fn size(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a size; use a number with K, M, G or T");
    let (number, shift) = match text.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        rest if rest.ends_with('K') => (rest.trim_end_matches('K').to_string(), 10),
        rest if rest.ends_with('M') => (rest.trim_end_matches('M').to_string(), 20),
        rest if rest.ends_with('G') => (rest.trim_end_matches('G').to_string(), 30),
        rest if rest.ends_with('T') => (rest.trim_end_matches('T').to_string(), 40),
        rest => (rest.to_string(), 0),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(refused);
    }
    let (whole, fraction) = number.split_once('.').ok_or_else(refused)?;
    let digits = u32::try_from(fraction.len()).ok().filter(|&n| (1..=3).contains(&n)).ok_or_else(refused)?;
    let (whole, fraction): (u64, u64) =
        (whole.parse().map_err(|_| refused())?, fraction.parse().map_err(|_| refused())?);
    let fraction = (fraction << shift) / 10_u64.pow(digits);
    whole.checked_mul(1 << shift).and_then(|bytes| bytes.checked_add(fraction)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for bad in ["", "x", "-1", "1.G", "1.2345G", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
