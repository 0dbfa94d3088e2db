//! What the text of a query tells before anything is built of it.
//!
//! A parser reads `1 + 1 + 1` in a loop, but the tree that it builds is as deep as the chain is long, and whoever walks
//! or drops that tree recurses as deep: some thousand operators exhaust a thread's stack, which ends the process. So
//! what makes a tree or a plan deeper is counted among the tokens. What is only long (the values of `IN`, columns,
//! arguments) costs no depth and is not counted.
//!
//! A subquery of `WITH` is put wherever it is named. Where each names its predecessor twice, thirty lines become a plan
//! of a billion steps, before anything that keeps a time limit has begun; so that is counted too.

use std::collections::HashMap;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::SqlError;

/// Most operators and words of the language: each may be one more level of an expression.
const MAX_OPERATORS: usize = 500;

/// Most tables, subqueries and set operations: each may be several more levels of the plan.
const MAX_TABLES: usize = 100;

/// Most brackets that are open at once, in the query or within one of its texts (`arrow_cast` reads types from texts).
/// The parser stops at 50, but not everywhere.
const MAX_NESTING: usize = 60;

/// Most subqueries that the names of `WITH` stand for, one within the other.
const MAX_UNFOLDED: usize = 1_000;

/// What a query's text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    /// Bytes of the longest text or number in it.
    pub(super) longest_literal: usize,
}

impl Text {
    /// Reads the text; refuses one that would be too deep.
    ///
    /// # Errors
    /// [`SqlError::TooComplex`].
    pub(super) fn read(query: &str) -> Result<Self, SqlError> {
        // What is no sequence of tokens is no tree either; the parser says where the mistake is.
        let tokens = Tokenizer::new(&GenericDialect {}, query)
            .tokenize()
            .unwrap_or_default();
        let depth = Depth::of(&tokens);
        let limits = [
            (
                depth.operators,
                MAX_OPERATORS,
                "operators and words of the language",
            ),
            (depth.tables, MAX_TABLES, "tables, subqueries and set operations"),
            (depth.nesting, MAX_NESTING, "brackets open at once"),
            (
                unfolded(&tokens),
                MAX_UNFOLDED,
                "subqueries that the names of WITH stand for",
            ),
        ];
        for (count, most, of_what) in limits {
            if count > most {
                return Err(SqlError::TooComplex(format!("{count} {of_what}, at most {most}")));
            }
        }
        Ok(Self {
            longest_literal: depth.longest_literal,
        })
    }
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::Placeholder(_)
    )
}

/// Counts of what makes trees deeper.
#[derive(Debug, Default)]
struct Depth {
    operators: usize,
    tables: usize,
    nesting: usize,
    /// Whether the commas within each open bracket separate tables; the last is the innermost.
    in_from: Vec<bool>,
    /// Whether the comma outside all brackets does.
    outside_in_from: bool,
    /// Periods of the present name: the second and each further one reaches into a structure.
    periods: usize,
    follows_period: bool,
    longest_literal: usize,
}

impl Depth {
    fn of(tokens: &[Token]) -> Self {
        let mut depth = Self::default();
        for token in tokens {
            match token {
                Token::EOF | Token::SemiColon | Token::Whitespace(_) => {}
                Token::Word(word) => depth.word(word),
                Token::LParen | Token::LBracket | Token::LBrace => depth.open(token),
                Token::RParen | Token::RBracket | Token::RBrace => depth.close(token),
                Token::Comma => depth.comma(),
                Token::Period => depth.period(),
                literal if is_literal(literal) => depth.literal(&literal.to_string()),
                _ => depth.operator(),
            }
        }
        depth
    }

    fn separates_tables(&mut self) -> &mut bool {
        self.in_from.last_mut().unwrap_or(&mut self.outside_in_from)
    }

    fn word(&mut self, word: &Word) {
        // A column may be called like a word of the language.
        if std::mem::take(&mut self.follows_period) {
            return;
        }
        self.periods = 0;
        match word.keyword {
            Keyword::NoKeyword => {}
            // Some letters are words of the language and the usual names of tables.
            _ if word.value.len() == 1 => {}
            Keyword::FROM => {
                *self.separates_tables() = true;
                self.operators += 1;
            }
            Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                *self.separates_tables() = false;
                self.operators += 1;
            }
            Keyword::SELECT | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
                *self.separates_tables() = false;
                self.tables += 1;
            }
            Keyword::JOIN
            | Keyword::APPLY
            | Keyword::PIVOT
            | Keyword::UNPIVOT
            | Keyword::VALUES
            | Keyword::TABLE
            | Keyword::EXPLAIN => self.tables += 1,
            _ => self.operators += 1,
        }
    }

    fn operator(&mut self) {
        self.ends_name();
        self.operators += 1;
    }

    fn comma(&mut self) {
        self.ends_name();
        self.tables += usize::from(*self.separates_tables());
    }

    fn period(&mut self) {
        self.periods += 1;
        self.operators += usize::from(self.periods > 1);
        self.follows_period = true;
    }

    fn open(&mut self, bracket: &Token) {
        self.ends_name();
        self.in_from.push(false);
        self.nesting = self.nesting.max(self.in_from.len());
        // Subscripts chain.
        self.operators += usize::from(*bracket != Token::LParen);
    }

    fn close(&mut self, bracket: &Token) {
        self.ends_name();
        self.in_from.pop();
        self.periods = usize::from(*bracket == Token::RBracket);
    }

    fn literal(&mut self, text: &str) {
        self.ends_name();
        self.longest_literal = self.longest_literal.max(text.len());
        let mut open = 0_usize;
        for byte in text.bytes() {
            match byte {
                b'(' | b'[' | b'{' | b'<' => open += 1,
                b')' | b']' | b'}' | b'>' => open = open.saturating_sub(1),
                _ => {}
            }
            self.nesting = self.nesting.max(open);
        }
    }

    fn ends_name(&mut self) {
        self.periods = 0;
        self.follows_period = false;
    }
}

/// A subquery that is being given a name.
struct Naming {
    name: String,
    /// Brackets that are open around it.
    nesting: usize,
    /// Subqueries that it stands for, itself included.
    stands_for: usize,
}

/// How many subqueries a query becomes once every name of a `WITH` is replaced by what it stands for. A column that is
/// called like one counts as well.
fn unfolded(tokens: &[Token]) -> usize {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut open: Vec<Naming> = Vec::new();
    let mut total = 1_usize;
    // The word before each open bracket, and the last word or the one before the bracket that was just closed.
    let mut before: Vec<Option<String>> = Vec::new();
    let mut last: Option<String> = None;
    let mut follows_as = false;
    let mut tokens = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) if word.keyword == Keyword::AS => follows_as = true,
            Token::Word(word)
                if follows_as && matches!(word.keyword, Keyword::NOT | Keyword::MATERIALIZED) => {}
            Token::Word(word) => {
                let name = word.value.to_lowercase();
                let is_table = !follows_as && tokens.peek() != Some(&&Token::Period);
                if let Some(stands_for) = known.get(&name).filter(|_| is_table) {
                    let sum = open
                        .last_mut()
                        .map_or(&mut total, |naming| &mut naming.stands_for);
                    *sum = sum.saturating_add(*stands_for);
                }
                last = Some(name);
                follows_as = false;
            }
            Token::LParen => {
                if let Some(name) = last.clone().filter(|_| follows_as) {
                    open.push(Naming {
                        name,
                        nesting: before.len(),
                        stands_for: 1,
                    });
                }
                before.push(last.take());
                follows_as = false;
            }
            Token::RParen => {
                last = before.pop().flatten();
                if let Some(named) = open.pop_if(|naming| naming.nesting == before.len()) {
                    known.insert(named.name, named.stands_for);
                }
            }
            _ => {
                last = None;
                follows_as = false;
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(query: &str) -> Vec<Token> {
        Tokenizer::new(&GenericDialect {}, query).tokenize().unwrap()
    }

    fn counts(query: &str) -> (usize, usize, usize) {
        let depth = Depth::of(&tokens(query));
        (depth.operators, depth.tables, depth.nesting)
    }

    #[test]
    fn what_chains_is_counted_and_what_is_only_long_is_not() {
        assert_eq!(counts("SELECT 1 + 2 - 3"), (2, 1, 0));
        assert_eq!(counts("SELECT a, b, c, f(d, e)"), (0, 1, 1));
        assert_eq!(counts("SELECT a FROM t WHERE a IN (1, 2, 3, 4)"), (3, 1, 1));
        assert_eq!(counts("SELECT a FROM t, u, v GROUP BY a, b"), (3, 3, 0));
        assert_eq!(counts("SELECT t.date, u.select FROM t JOIN u"), (1, 2, 0));
        assert_eq!(counts("SELECT a.b.c, d[1].e"), (3, 1, 1));
        assert_eq!(counts("SELECT arrow_cast(1, 'List(List(Int64))')"), (0, 1, 2));
        assert_eq!(counts("EXPLAIN SELECT 1 UNION ALL VALUES (1)"), (1, 4, 1));
    }

    #[test]
    fn the_longest_literal_is_found_and_what_cannot_be_read_is_left_to_the_parser() {
        assert_eq!(Text::read("SELECT 'abc', 7").unwrap().longest_literal, 5);
        assert_eq!(Text::read("SELECT '").unwrap().longest_literal, 0);
    }
    #[test]
    fn names_of_with_count_for_what_they_stand_for() {
        let of = |query: &str| unfolded(&tokens(query));
        assert_eq!(of("SELECT a AS b FROM c WHERE (d)"), 1);
        assert_eq!(of("WITH one AS (SELECT 1) SELECT one.x FROM one"), 2);
        let doubling = "WITH one AS (SELECT 1), two (x) AS (SELECT a.y FROM One a, one AS b), \
                        four AS NOT MATERIALIZED (SELECT 1 FROM (SELECT 1 FROM two), two) SELECT 1 FROM four JOIN four";
        assert_eq!(of(doubling), 1 + 2 * (1 + 2 * (1 + 2)));
    }
}
