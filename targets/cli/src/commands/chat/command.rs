//! The commands of a conversation: lines that begin with a slash.

use std::path::PathBuf;

/// What `/help` prints.
pub const HELP: &str = "\
/save FILE     write the conversation; FILE.json as plain messages, including dropped ones
/load FILE     go on with a saved conversation
/regen         answer the last message again, from another seed
/edit TEXT     ask the last question again in these words
/system TEXT   set the system prompt; without TEXT, show it
/think HOW     on, off, low or high, as far as the model knows it
/file PATH     put a file before the next message
/tools FILE    let the model call these tools (JSON); off removes them
/reset         forget the conversation
/stats         cost of the last answer
/help          this
/exit          leave (or Ctrl-D)
\"\"\" begins and ends a message of several lines; \\ at the end of a line continues it.
Ctrl-C stops an answer and keeps the conversation.";

/// A command.
#[derive(Debug, PartialEq)]
pub enum Command {
    Exit,
    Help,
    Reset,
    Stats,
    Regenerate,
    Edit(Option<String>),
    System(Option<String>),
    Think(String),
    File(PathBuf),
    Tools(Option<PathBuf>),
    Save(Option<PathBuf>),
    Load(PathBuf),
    Unknown(String),
}

impl Command {
    /// The command in a message, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if !text.starts_with('/') {
            return None;
        }
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = Some(rest.trim().to_string()).filter(|rest| !rest.is_empty());
        let path = rest.as_ref().map(PathBuf::from);
        let command = match (name, rest) {
            ("/exit" | "/quit" | "/bye" | "/q", None) => Self::Exit,
            ("/help" | "/?", _) => Self::Help,
            ("/reset" | "/clear" | "/new", None) => Self::Reset,
            ("/stats", None) => Self::Stats,
            ("/regen" | "/retry", None) => Self::Regenerate,
            ("/edit", rest) => Self::Edit(rest),
            ("/system", rest) => Self::System(rest),
            ("/think", Some(how)) => Self::Think(how),
            ("/tools", Some(off)) if off == "off" => Self::Tools(None),
            ("/tools", Some(_)) => Self::Tools(path),
            ("/save", _) => Self::Save(path),
            ("/file" | "/read", Some(path)) => Self::File(path.into()),
            ("/load", Some(path)) => Self::Load(path.into()),
            _ => Self::Unknown(text.into()),
        };
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(Command::parse("what is 1/2?"), None);
        assert_eq!(Command::parse(" /bye "), Some(Command::Exit));
        let edit = Command::Edit(Some("in other words".into()));
        assert_eq!(Command::parse("/edit in other words"), Some(edit));
        assert_eq!(Command::parse("/save"), Some(Command::Save(None)));
        assert_eq!(Command::parse("/load a b.json"), Some(Command::Load("a b.json".into())));
        assert_eq!(Command::parse("/load"), Some(Command::Unknown("/load".into())));
        assert_eq!(Command::parse("/tools off"), Some(Command::Tools(None)));
    }
}
