//! Texts of prompts: an instruction with places for the question, after examples with answers.

use super::questions::{Choice, Problem};

/// DeepSeek's recommendation for questions of mathematics.
pub const BOXED: &str =
    "{question}\nPlease reason step by step, and put your final answer within \\boxed{}.";
/// GSM8K, as lm-evaluation-harness asks it.
pub const GSM8K: &str = "Question: {question}\nAnswer:";
/// MMLU, as lm-evaluation-harness asks it.
pub const MMLU: &str = "{question}\n{choices}\nAnswer:";
/// MMLU as a question of a conversation.
pub const MMLU_CHAT: &str =
    "{question}\n{choices}\nPlease answer with the letter of the right choice within \\boxed{}.";
/// Between examples.
const BETWEEN: &str = "\n\n";

/// What a prompt has places for.
pub trait Places {
    /// The values of `{question}`, `{choices}` and `{subject}`.
    fn value(&self, place: &str) -> Option<String>;

    /// The answer behind an example.
    fn target(&self) -> String;
}

impl Places for Problem {
    fn value(&self, place: &str) -> Option<String> {
        (place == "question").then(|| self.question.trim().to_string())
    }

    fn target(&self) -> String {
        self.answer.clone()
    }
}

impl Places for Choice {
    fn value(&self, place: &str) -> Option<String> {
        match place {
            "question" => Some(self.question.trim().into()),
            "choices" => Some(self.list()),
            "subject" => self.subject.as_ref().map(|subject| subject.replace('_', " ")),
            _ => None,
        }
    }

    fn target(&self) -> String {
        Self::letter(self.answer).into()
    }
}

/// A template with its places filled. Values are not searched for places again.
pub fn fill(template: &str, with: &impl Places) -> String {
    let (mut out, mut rest) = (String::new(), template);
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let place = rest[1..].split_once('}');
        match place.and_then(|(name, after)| Some((with.value(name)?, after))) {
            Some((value, after)) => {
                out.push_str(&value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// The text before the examples: MMLU tells the subject there.
pub fn introduction(choice: &Choice) -> String {
    let about = |subject| {
        format!("The following are multiple choice questions (with answers) about {subject}.")
    };
    choice.value("subject").map_or_else(String::new, |subject| about(subject) + BETWEEN)
}

/// A question after examples.
pub fn with_examples<T: Places>(template: &str, examples: &[&T], question: &T) -> String {
    let shown = |one: &&T| format!("{} {}{BETWEEN}", fill(template, *one), one.target());
    examples.iter().map(shown).collect::<String>() + &fill(template, question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let problem =
            Problem { question: " {question}? ".into(), answer: "7".into(), subject: None };
        assert_eq!(fill("Q: {question} \\boxed{} {x}", &problem), "Q: {question}? \\boxed{} {x}");
        let prompt = with_examples(GSM8K, &[&problem], &problem);
        let one = "Question: {question}?\nAnswer:";
        assert_eq!(prompt, format!("{one} 7\n\n{one}"));
    }

    #[test]
    fn choices_are_listed_under_their_subject() {
        let choices = vec!["drill".into(), "camel".into()];
        let subject = Some("wild_life".into());
        let choice = Choice { question: "Which?".into(), choices, answer: 1, subject };
        assert_eq!(fill(MMLU, &choice), "Which?\nA. drill\nB. camel\nAnswer:");
        assert!(introduction(&choice).ends_with("about wild life.\n\n"));
    }
}
