//! Year and title out of one field.

/// Years that a movie can have come out in.
const YEARS: std::ops::RangeInclusive<u16> = 1870..=2100;

/// Splits `Toy Story (1995)` into `Toy Story` and 1995.
///
/// Also understood: blanks around, `(1994-1996)` and `(2006–)` (the first year counts), no blank before the bracket,
/// and a tag behind it as in `Title (1995) (V)`, which stays in the title. A bracket that is not a year is part of
/// the title, and a title that is nothing but a year keeps it.
pub(super) fn split(field: &str) -> (String, Option<u16>) {
    let field = field.trim();
    let mut end = field.len();
    // At most the last two brackets: the year, and a tag behind it.
    for _ in 0..2 {
        let head = field[..end].trim_end();
        let (Some(open), true) = (head.rfind('('), head.ends_with(')')) else {
            break;
        };
        if let Some(year) = year(&head[open + 1..head.len() - 1]) {
            let before = head[..open].trim_end();
            let after = field[head.len()..].trim();
            if before.is_empty() {
                break;
            }
            let title = if after.is_empty() {
                before.to_owned()
            } else {
                format!("{before} {after}")
            };
            return (title, Some(year));
        }
        end = open;
    }
    (field.to_owned(), None)
}

/// `1995`, `1994-1996`, `2006–2007`, `1975- `.
fn year(inside: &str) -> Option<u16> {
    let inside = inside.trim();
    let (first, rest) = inside.split_at_checked(4)?;
    let rest = rest.trim();
    let span = rest.is_empty()
        || rest
            .strip_prefix(['-', '–', '—'])
            .is_some_and(|last| last.trim().chars().all(|c| c.is_ascii_digit()));
    if !span || !first.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    first.parse().ok().filter(|year| YEARS.contains(year))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_year_is_found_in_every_form_that_occurs() {
        for (field, title, year) in [
            ("Toy Story (1995)", "Toy Story", Some(1995)),
            ("Usual Suspects, The (1995)", "Usual Suspects, The", Some(1995)),
            (
                "Assembly (Ji jie hao) (2007) ",
                "Assembly (Ji jie hao)",
                Some(2007),
            ),
            ("Fawlty Towers (1975-1979)", "Fawlty Towers", Some(1975)),
            (
                "Death Note: Desu nôto (2006–2007)",
                "Death Note: Desu nôto",
                Some(2006),
            ),
            ("Doctor Who (1963– )", "Doctor Who", Some(1963)),
            (
                "Associate, The (L'Associé)(1982)",
                "Associate, The (L'Associé)",
                Some(1982),
            ),
            (
                "Land Before Time III (1995) (V)",
                "Land Before Time III (V)",
                Some(1995),
            ),
            ("Babylon 5", "Babylon 5", None),
            ("unknown", "unknown", None),
            ("2001", "2001", None),
            ("Movie (9999)", "Movie (9999)", None),
            ("(1995)", "(1995)", None),
            ("Half (open", "Half (open", None),
            ("Close) (1999", "Close) (1999", None),
            ("Ünï (日本)", "Ünï (日本)", None),
            ("", "", None),
        ] {
            assert_eq!(split(field), (title.to_owned(), year), "{field:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_split_without_panic(field in ".*") {
            let (title, _) = split(&field);
            proptest::prop_assert!(title.len() <= field.len());
        }

        #[test]
        fn a_plain_title_and_its_year_come_back(title in "[A-Za-z][A-Za-z ,']{0,30}[a-z]", year in 1880_u16..2030) {
            proptest::prop_assert_eq!(split(&format!("{title} ({year})")), (title.clone(), Some(year)));
        }
    }
}
