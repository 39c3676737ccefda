//! Numbers of CPUs as people write them.

/// Thousandths of a CPU: `0.5`, `1`, `2.25`, from 0.01 to 1000.
///
/// # Errors
/// What is wrong with the text.
pub fn cpus(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a number of CPUs; use 0.5, 1, 2.25, …");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = u32::try_from(fraction.len()).ok().filter(|&n| (1..=3).contains(&n)).ok_or_else(refused)?;
    let (whole, fraction): (u64, u64) =
        (whole.parse().map_err(|_| refused())?, fraction.parse().map_err(|_| refused())?);
    let millis =
        whole.checked_mul(1000).and_then(|millis| millis.checked_add(fraction * 10_u64.pow(3 - digits)));
    millis.filter(|millis| (10..=1_000_000).contains(millis)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::cpus;

    #[test]
    fn cpu_shares() {
        for (text, want) in [("1", 1000), ("0.5", 500), ("2.25", 2250), ("0.01", 10)] {
            assert_eq!(cpus(text), Ok(want), "{text}");
        }
        for bad in ["", "0", "-1", "1.", "1.2345", "x", "100000", "18446744073709551.999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
