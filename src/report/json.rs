//! JSON in the making, for the log and for the status page.

use std::fmt::{self, Display, Write};

/// Text in the making. What a name or an address may bring is escaped, and so is what would be
/// markup if somebody took it for that.
pub(super) struct Json(pub(super) String);

impl Json {
    pub(super) fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.0.push('{');
        members(self);
        self.0.push('}');
    }

    pub(super) fn list(&mut self, items: impl FnOnce(&mut Json)) {
        self.0.push('[');
        items(self);
        self.0.push(']');
    }

    /// Separates what comes from what is there already.
    pub(super) fn item(&mut self) -> &mut Self {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        self
    }

    /// The name of a member, whose value comes next.
    pub(super) fn key(&mut self, name: &str) -> &mut Self {
        self.item().write(format_args!("\"{name}\":"));
        self
    }

    /// A number, or true or false.
    pub(super) fn number(&mut self, name: &str, value: impl Display) {
        self.key(name).write(value);
    }

    pub(super) fn numbers(
        &mut self,
        name: &str,
        members: impl IntoIterator<Item = (&'static str, impl Display)>,
    ) {
        self.key(name).object(|json| {
            members.into_iter().for_each(|(name, value)| json.number(name, value));
        });
    }

    /// A text, or null.
    pub(super) fn text(&mut self, name: &str, value: Option<impl Display>) {
        let Some(value) = value else { return self.number(name, "null") };
        self.key(name).0.push('"');
        write!(Escaped(&mut self.0), "{value}").expect("memory takes every text");
        self.0.push('"');
    }

    pub(super) fn write(&mut self, value: impl Display) {
        write!(self.0, "{value}").expect("memory takes every text");
    }
}

/// Members that a line of the log has in JSON instead of its text: they are handed over under the key
/// `json`, and made only where they are asked for. Each begins with its comma.
pub(super) struct Members<M>(pub(super) M);

impl<M: Fn(&mut Json)> Display for Members<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = Json(String::new());
        (self.0)(&mut json);
        f.write_str(&json.0)
    }
}

/// Takes text, and writes it as the inside of a string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() || "\"\\<>&'\u{2028}\u{2029}".contains(character) {
                write!(self.0, "\\u{:04x}", u32::from(character))?;
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_is_escaped() {
        let mut json = Json(String::new());
        json.object(|json| json.text("user", Some("<b>\"\\\n\x1b&'\u{2028}é")));
        let expected = r#"{"user":"\u003cb\u003e\u0022\u005c\u000a\u001b\u0026\u0027\u2028é"}"#;
        assert_eq!(json.0, expected);
    }
}
