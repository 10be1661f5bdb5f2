use std::borrow::Cow;

/// The words of `text`, as they stand there: the longest runs of letters, digits and `_`.
///
/// ```
/// let found: Vec<&str> = spanalloc_cli::words("let x_1 = Über::new();").collect();
/// assert_eq!(found, ["let", "x_1", "Über", "new"]);
/// ```
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The form in which a word is indexed: lower case. Copies only what changes.
///
/// ```
/// assert_eq!(spanalloc_cli::fold("GlobalAlloc"), "globalalloc");
/// ```
#[must_use]
pub fn fold(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    }
}

/// What the bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text in UTF-8.
    Text(String),
    /// Text with bytes that are not UTF-8, which were replaced.
    Lossy(String),
    /// No text.
    Binary,
}

/// How many bytes at the start of a file are searched for a NUL, which text does not have.
const SEARCHED: usize = 8 * 1024;

impl Content {
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        if bytes.iter().take(SEARCHED).any(|byte| *byte == 0) {
            return Self::Binary;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Lossy(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The words of `text`, character by character.
    fn naive(text: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for c in text.chars() {
            if c.is_alphanumeric() || c == '_' {
                found.last_mut().unwrap().push(c);
            } else {
                found.push(String::new());
            }
        }
        found.retain(|word| !word.is_empty());
        found
    }

    proptest! {
        #[test]
        fn words_are_those_of_a_naive_reader(text in "[a-cA-C_0é ß.,\n\u{4e2d}-]{0,60}") {
            prop_assert_eq!(words(&text).collect::<Vec<_>>(), naive(&text));
        }

        #[test]
        fn folding_is_lower_case(word in "\\PC{0,12}") {
            prop_assert_eq!(fold(&word), word.to_lowercase());
        }
    }

    #[test]
    fn content_is_told_apart() {
        assert_eq!(Content::of(b"text".to_vec()), Content::Text("text".into()));
        assert_eq!(Content::of(b"a\xffb".to_vec()), Content::Lossy("a\u{fffd}b".into()));
        assert_eq!(Content::of(b"\x7fELF\0".to_vec()), Content::Binary);
        assert_eq!(Content::of(Vec::new()), Content::Text(String::new()));
    }
}
