//! The man pages, as they follow from the Markdown beside this folder, and the completions, as they follow
//! from the command line.

use clap_complete::Shell;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

const REFERENCE: &str = include_str!("../reference.md");
const RULES: &str = include_str!("../rules.md");
const CHANGELOG: &str = include_str!("../../../CHANGELOG.md");

/// The widest line that mandoc -Tlint is content with.
const WIDTH: usize = 79;

/// Every page: where it stands below the top folder, and what is in it.
pub(crate) fn all() -> [(&'static str, Vec<u8>); 5] {
    [
        ("scripts/packaging/man/tabi.8", man("TABI 8", "System administration", REFERENCE)),
        ("scripts/packaging/man/tabi-rules.5", man(r"TABI\-RULES 5", "File formats", RULES)),
        ("scripts/packaging/completions/tabi.bash", completions(Shell::Bash)),
        ("scripts/packaging/completions/tabi.fish", completions(Shell::Fish)),
        ("scripts/packaging/completions/_tabi", completions(Shell::Zsh)),
    ]
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut made = Vec::new();
    clap_complete::generate(shell, &mut tabi::cli::command(), "tabi", &mut made);
    made
}

/// The man page that this Markdown is, dated like the newest version of the changelog.
fn man(title: &str, manual: &str, markdown: &str) -> Vec<u8> {
    let date = CHANGELOG.lines().find_map(|line| line.strip_prefix("## ")?.split(" - ").nth(1));
    let (date, version) = (date.unwrap_or_default(), env!("CARGO_PKG_VERSION"));
    let mut page = Page::default();
    page.line(&format!(r#".TH {title} {date} "tabi {version}" "{manual}""#));
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.made.into_bytes()
}

/// A man page as far as it is made, in the macros of man(7).
#[derive(Default)]
struct Page {
    made: String,
    /// The text of the paragraph, heading, item or cell that has begun.
    text: String,
    /// The heads of the table's columns.
    heads: Vec<String>,
    /// The cell's column; none outside of a row.
    column: Option<usize>,
    is_code: bool,
}

impl Page {
    fn take(&mut self, event: Event) {
        match event {
            Event::Text(text) => self.text += &escaped(&text),
            Event::Code(code) => self.text.extend([r"\fB", &escaped(&code), r"\fR"]),
            Event::SoftBreak => self.text.push(' '),
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            _ => panic!("the man pages have no form for {event:?}"),
        }
    }

    fn start(&mut self, tag: &Tag) {
        match tag {
            Tag::Paragraph => self.paragraph(),
            Tag::CodeBlock(_) => {
                self.paragraph();
                self.line(".RS 4\n.nf");
                self.is_code = true;
            }
            Tag::Item => self.line(r".IP \(bu 2"),
            Tag::Table(_) => self.heads.clear(),
            Tag::TableRow => self.column = Some(0),
            Tag::TableCell if self.column == Some(0) => self.line(".TP"),
            Tag::TableCell
            | Tag::TableHead
            | Tag::Heading { .. }
            | Tag::List(None)
            | Tag::Link { .. } => {}
            _ => panic!("the man pages have no form for {tag:?}"),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::CodeBlock => {
                self.flush();
                self.line(".fi\n.RE");
                self.is_code = false;
            }
            TagEnd::TableCell => self.cell(),
            TagEnd::TableRow => self.column = None,
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            _ => {}
        }
    }

    fn heading(&mut self, level: HeadingLevel) {
        let text = std::mem::take(&mut self.text);
        match level {
            HeadingLevel::H1 => {
                let (name, what) = text.split_once(": ").unwrap_or_default();
                self.line(&format!(".SH NAME\n{name} \\- {what}"));
            }
            HeadingLevel::H2 => self.line(&format!(".SH {}", text.to_uppercase())),
            _ => self.line(&format!(".SS {text}")),
        }
    }

    /// What a table says of something is an item of a list. Further cells stand below with their heads.
    fn cell(&mut self) {
        let Some(column) = self.column else {
            let head = std::mem::take(&mut self.text);
            return self.heads.push(head);
        };
        if column > 1 && !self.text.is_empty() {
            self.line(".br");
            self.text = format!("{}: {}", self.heads[column], self.text);
        }
        self.flush();
        self.column = Some(column + 1);
    }

    /// Begins a paragraph, where no heading has begun one.
    fn paragraph(&mut self) {
        let last = self.made.lines().last().unwrap_or_default();
        if !last.starts_with(".SH") && !last.starts_with(".SS") {
            self.line(".PP");
        }
    }

    /// Writes the text. A line of code, or of what a list says something about, stays one line where it is
    /// broken. A dot at a line's beginning would be a macro's.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        let end = if self.is_code || self.column == Some(0) { " \\" } else { "" };
        for mut line in text.lines() {
            while let Some(space) = line.get(..WIDTH).and_then(|start| start.rfind(' ')) {
                self.line(&format!("{}{end}", guarded(&line[..space])));
                line = &line[space + 1..];
            }
            self.line(&guarded(line));
        }
    }

    fn line(&mut self, line: &str) {
        self.made += line;
        self.made.push('\n');
    }
}

fn guarded(line: &str) -> String {
    if line.starts_with('.') { format!(r"\&{line}") } else { line.into() }
}

fn escaped(text: &str) -> String {
    const FORMS: [(&str, &str); 5] =
        [("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("^", r"\(ha"), ("~", r"\(ti")];
    FORMS.iter().fold(text.to_string(), |text, (plain, form)| text.replace(plain, form))
}
