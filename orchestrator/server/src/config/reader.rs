//! Reads TOML tables key by key and collects every mistake.

use core::fmt;
use std::cell::RefCell;

use toml::{Table, Value};

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, with its sections: `limits.max_channels`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Everything that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMistakes(pub Vec<Mistake>);

impl fmt::Display for ConfigMistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{}: {}", mistake.key, mistake.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigMistakes {}

/// A table that is taken apart key by key: what is left at the end are unknown keys.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    mistakes: &'a RefCell<Vec<Mistake>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, mistakes: &'a RefCell<Vec<Mistake>>) -> Self {
        Self {
            path: String::new(),
            table,
            mistakes,
        }
    }

    /// Adds a mistake about one of this section's keys.
    pub(super) fn mistake(&self, key: &str, problem: impl Into<String>) {
        let key = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        self.mistakes.borrow_mut().push(Mistake {
            key,
            problem: problem.into(),
        });
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let value = self.table.remove(key)?;
        self.as_text(key, value)
    }

    pub(super) fn required_text(&mut self, key: &str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.mistake(key, "is missing");
        }
        self.text(key)
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<(String, String)> {
        let items = self.array(key);
        let numbered = items.into_iter().enumerate();
        numbered
            .filter_map(|(index, item)| {
                let name = format!("{key}[{index}]");
                let text = self.as_text(&name, item)?;
                Some((name, text))
            })
            .collect()
    }

    /// Takes a whole number within bounds, or the default.
    pub(super) fn number<T>(&mut self, key: &str, default: T, least: T, most: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display + Copy,
    {
        let Some(value) = self.table.remove(key) else {
            return default;
        };
        let Some(number) = value.as_integer() else {
            self.wrong_type(key, "a whole number", &value);
            return default;
        };
        match T::try_from(number) {
            Ok(value) if value >= least && value <= most => value,
            Ok(_) | Err(_) => {
                self.mistake(key, format!("{number} is not between {least} and {most}"));
                default
            }
        }
    }

    pub(super) fn section(&mut self, key: &str) -> Option<Section<'a>> {
        let value = self.table.remove(key)?;
        self.as_section(key, value)
    }

    pub(super) fn sections(&mut self, key: &str) -> Vec<Section<'a>> {
        let items = self.array(key);
        let numbered = items.into_iter().enumerate();
        numbered
            .filter_map(|(index, item)| self.as_section(&format!("{key}[{index}]"), item))
            .collect()
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            self.mistake(key, "is no key that espalier-orchestrator knows");
        }
    }

    fn array(&mut self, key: &str) -> Vec<Value> {
        let Some(value) = self.table.remove(key) else {
            return Vec::new();
        };
        if let Value::Array(items) = value {
            return items;
        }
        self.wrong_type(key, "a list", &value);
        Vec::new()
    }

    fn as_text(&self, key: &str, value: Value) -> Option<String> {
        if let Value::String(text) = value {
            return Some(text);
        }
        self.wrong_type(key, "a text in quotes", &value);
        None
    }

    fn as_section(&self, key: &str, value: Value) -> Option<Section<'a>> {
        if let Value::Table(table) = value {
            return Some(self.inner(key, table));
        }
        self.wrong_type(key, "a section", &value);
        None
    }

    fn inner(&self, key: &str, table: Table) -> Section<'a> {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Section {
            path,
            table,
            mistakes: self.mistakes,
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Value) {
        self.mistake(
            key,
            format!(
                "expected {expected}, found a value of type {}",
                found.type_str()
            ),
        );
    }
}
