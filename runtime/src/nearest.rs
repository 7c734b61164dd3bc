//! The word that was probably meant: one measure for every "did you mean".

/// The known word nearest to a wrong one, if it is near enough to be a slip of the fingers: one letter left out, doubled,
/// exchanged or swapped with the next in words of up to five, one more for every three letters beyond.
pub fn nearest<'a, S>(word: &str, known: impl IntoIterator<Item = &'a S>) -> Option<&'a str>
where
    S: AsRef<str> + ?Sized + 'a,
{
    known
        .into_iter()
        .map(|candidate| candidate.as_ref())
        .filter_map(|candidate| {
            let shorter = word.chars().count().min(candidate.chars().count());
            let slips = match shorter {
                0 | 1 => 0,
                2..=5 => 1,
                longer => longer / 3,
            };
            let distance = strsim::damerau_levenshtein(word, candidate);
            (distance <= slips).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let words = ["mtu", "mac", "name", "netns", "address", "peer", "txqueuelen", "to"];
        let cases = [
            ("mut", Some("mtu")),
            ("nam", Some("name")),
            ("netsn", Some("netns")),
            ("adress", Some("address")),
            ("txqueulen", Some("txqueuelen")),
            ("mxu", Some("mtu")),
            ("mu", Some("mtu")),
            ("x", None),
            ("via", None),
            ("bar", None),
            ("foo", None),
            ("dev", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, &words[..]), expected, "{word}");
        }
    }
}
