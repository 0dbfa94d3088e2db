//! One line under a cursor: what each key does to it, what came before, and how words are completed. No terminal here.

use console::Key;

/// Entries kept of what was asked before.
const KEPT: usize = 1_000;

/// What a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The line may look different now.
    Editing,
    /// The line is finished.
    Accepted(String),
    /// The line is given up.
    Cancelled,
    /// There will be no more lines.
    Ended,
    /// The word may become any of these.
    Choices(Vec<String>),
}

/// What was asked before, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History(Vec<String>);

impl History {
    /// As [`History::to_text`] wrote it; a damaged line is passed over.
    pub(super) fn of_text(text: &str) -> Self {
        let mut history = Self::default();
        for line in text.lines() {
            if let Ok(entry) = serde_json::from_str::<String>(line) {
                history.add(&entry);
            }
        }
        history
    }

    /// One JSON text per line.
    pub(super) fn to_text(&self) -> String {
        self.0
            .iter()
            .map(|entry| serde_json::Value::from(entry.as_str()).to_string() + "\n")
            .collect()
    }

    /// Adds an entry, unless it repeats the newest.
    pub(super) fn add(&mut self, entry: &str) {
        let entry = entry.trim();
        if entry.is_empty() || self.0.last().is_some_and(|last| last == entry) {
            return;
        }
        self.0.push(entry.to_owned());
        let surplus = self.0.len().saturating_sub(KEPT);
        self.0.drain(..surplus);
    }
}

/// The line being written.
#[derive(Debug, Default)]
pub(super) struct Editor {
    line: Vec<char>,
    at: usize,
    pub(super) history: History,
    /// Where in the history the line comes from, and what had been written before it was looked up.
    recalled: Option<(usize, String)>,
    words: Vec<String>,
}

impl Editor {
    /// An empty line; words are completed to one of `words`.
    pub(super) fn new(history: History, mut words: Vec<String>) -> Self {
        words.sort_unstable();
        words.dedup();
        Self {
            history,
            words,
            ..Self::default()
        }
    }

    /// The line, and how many characters of it stand before the cursor.
    pub(super) fn line(&self) -> (String, usize) {
        (self.line.iter().collect(), self.at)
    }

    pub(super) fn press(&mut self, key: Key) -> Outcome {
        let is_lookup = matches!(
            key,
            Key::ArrowUp | Key::ArrowDown | Key::Char('\x10') | Key::Char('\x0e')
        );
        if !is_lookup {
            self.recalled = None;
        }
        match key {
            Key::Enter => {
                let line = std::mem::take(&mut self.line).into_iter().collect();
                self.at = 0;
                return Outcome::Accepted(line);
            }
            Key::CtrlC | Key::Char('\x03') => {
                self.line.clear();
                self.at = 0;
                return Outcome::Cancelled;
            }
            Key::Char('\x04') if self.line.is_empty() => return Outcome::Ended,
            Key::Tab => return self.complete(),
            Key::Backspace if self.at > 0 => {
                self.at -= 1;
                self.line.remove(self.at);
            }
            Key::Del | Key::Char('\x04') if self.at < self.line.len() => {
                self.line.remove(self.at);
            }
            Key::ArrowLeft | Key::Char('\x02') => self.at = self.at.saturating_sub(1),
            Key::ArrowRight | Key::Char('\x06') => self.at = (self.at + 1).min(self.line.len()),
            Key::Home => self.at = 0,
            Key::End => self.at = self.line.len(),
            // Ctrl-K, Ctrl-U and Ctrl-W: cut to the end, to the start, the word before.
            Key::Char('\x0b') => self.line.truncate(self.at),
            Key::Char('\x15') => {
                self.line.drain(..self.at);
                self.at = 0;
            }
            Key::Char('\x17') => {
                let start = self.start_of_word(|c| !c.is_whitespace());
                self.line.drain(start..self.at);
                self.at = start;
            }
            Key::ArrowUp | Key::Char('\x10') => self.look_up(true),
            Key::ArrowDown | Key::Char('\x0e') => self.look_up(false),
            Key::Char(c) if !c.is_control() => {
                self.line.insert(self.at, c);
                self.at += 1;
            }
            _ => {}
        }
        Outcome::Editing
    }

    /// Where the word before the cursor begins, spaces between them aside.
    fn start_of_word(&self, is_part: impl Fn(char) -> bool) -> usize {
        let before = &self.line[..self.at];
        let end = before
            .iter()
            .rposition(|c| !c.is_whitespace())
            .map_or(0, |last| last + 1);
        before[..end]
            .iter()
            .rposition(|&c| !is_part(c))
            .map_or(0, |last| last + 1)
    }

    /// The next older (or newer) entry that begins with what had been written.
    fn look_up(&mut self, older: bool) {
        let (from, written) = match self.recalled.take() {
            Some(recalled) => recalled,
            None if older => (self.history.0.len(), self.line.iter().collect()),
            None => return,
        };
        let begins = |&at: &usize| self.history.0[at].starts_with(&written);
        let found = if older {
            (0..from).rev().find(begins)
        } else {
            (from + 1..self.history.0.len()).find(begins)
        };
        let (text, recalled) = match found {
            Some(at) => (self.history.0[at].clone(), Some((at, written))),
            // Beyond the oldest the oldest stays; beyond the newest is what had been written.
            None if older => {
                self.recalled = (from < self.history.0.len()).then_some((from, written));
                return;
            }
            None => (written, None),
        };
        self.line = text.chars().collect();
        self.at = self.line.len();
        self.recalled = recalled;
    }

    /// Completes the word before the cursor as far as all words that begin with it agree.
    fn complete(&mut self) -> Outcome {
        let start = self.line[..self.at]
            .iter()
            .rposition(|&c| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |last| last + 1);
        let begun: String = self.line[start..self.at].iter().collect();
        if begun.is_empty() {
            return Outcome::Editing;
        }
        // Keywords are kept in capitals and found in any case.
        let begun_low = begun.to_lowercase();
        let choices: Vec<&String> = self
            .words
            .iter()
            .filter(|word| word.to_lowercase().starts_with(&begun_low))
            .collect();
        let [first, others @ ..] = choices.as_slice() else {
            return Outcome::Editing;
        };
        let common = others.iter().fold(first.chars().count(), |common, word| {
            let agree = first
                .chars()
                .zip(word.chars())
                .take_while(|(a, b)| a.eq_ignore_ascii_case(b));
            common.min(agree.count())
        });
        let mut word: Vec<char> = first.chars().take(common).collect();
        let is_whole = others.is_empty();
        if is_whole {
            word.push(' ');
        }
        if !is_whole && common <= self.at - start {
            return Outcome::Choices(choices.into_iter().cloned().collect());
        }
        let length = word.len();
        self.line.splice(start..self.at, word);
        self.at = start + length;
        Outcome::Editing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(history: &[&str]) -> Editor {
        let mut asked = History::default();
        history.iter().for_each(|entry| asked.add(entry));
        let words = ["SELECT", "request_logs", "request_id", "interactions"];
        Editor::new(asked, words.map(str::to_owned).into())
    }

    fn type_in(editor: &mut Editor, text: &str) {
        for c in text.chars() {
            assert_eq!(editor.press(Key::Char(c)), Outcome::Editing);
        }
    }

    #[test]
    fn keys_edit_the_line_where_the_cursor_stands() {
        let mut editor = editor(&[]);
        type_in(&mut editor, "SELCT é");
        for _ in 0..4 {
            editor.press(Key::ArrowLeft);
        }
        type_in(&mut editor, "E");
        assert_eq!(editor.line(), ("SELECT é".to_owned(), 4));
        editor.press(Key::End);
        editor.press(Key::Backspace);
        editor.press(Key::Home);
        editor.press(Key::Del);
        assert_eq!(editor.line(), ("ELECT ".to_owned(), 0));
        editor.press(Key::End);
        type_in(&mut editor, "one two ");
        editor.press(Key::Char('\x17'));
        assert_eq!(editor.line().0, "ELECT one ");
        editor.press(Key::Char('\x15'));
        assert_eq!(editor.line(), (String::new(), 0));
        assert_eq!(editor.press(Key::Char('\x04')), Outcome::Ended);
        type_in(&mut editor, "x;");
        assert_eq!(editor.press(Key::Enter), Outcome::Accepted("x;".into()));
        type_in(&mut editor, "y");
        assert_eq!(editor.press(Key::CtrlC), Outcome::Cancelled);
        assert_eq!(editor.line(), (String::new(), 0));
    }

    #[test]
    fn arrows_recall_what_begins_like_the_line_and_give_the_line_back() {
        let mut editor = editor(&["SELECT 1;", "EXPLAIN SELECT 1;", "SELECT 2;"]);
        type_in(&mut editor, "SEL");
        editor.press(Key::ArrowUp);
        assert_eq!(editor.line().0, "SELECT 2;");
        editor.press(Key::ArrowUp);
        editor.press(Key::ArrowUp);
        assert_eq!(editor.line().0, "SELECT 1;");
        editor.press(Key::ArrowDown);
        assert_eq!(editor.line().0, "SELECT 2;");
        editor.press(Key::ArrowDown);
        assert_eq!(editor.line(), ("SEL".to_owned(), 3));
    }

    #[test]
    fn a_word_is_completed_as_far_as_the_known_ones_agree() {
        let mut editor = editor(&[]);
        type_in(&mut editor, "sel");
        editor.press(Key::Tab);
        assert_eq!(editor.line().0, "SELECT ");
        type_in(&mut editor, "r");
        editor.press(Key::Tab);
        assert_eq!(editor.line().0, "SELECT request_");
        assert_eq!(
            editor.press(Key::Tab),
            Outcome::Choices(vec!["request_id".into(), "request_logs".into()])
        );
        type_in(&mut editor, "l");
        editor.press(Key::Tab);
        assert_eq!(editor.line().0, "SELECT request_logs ");
        assert_eq!(editor.press(Key::Tab), Outcome::Editing);
    }

    #[test]
    fn the_history_survives_its_file_and_is_bounded() {
        let mut history = History::default();
        history.add("SELECT 'a\nb';");
        history.add("SELECT 'a\nb';");
        history.add("  ");
        assert_eq!(History::of_text(&(history.to_text() + "no JSON\n")), history);
        assert_eq!(history.0.len(), 1);
        (0..2 * KEPT).for_each(|n| history.add(&n.to_string()));
        assert_eq!((history.0.len(), history.0[0].as_str()), (KEPT, "1000"));
    }
}
