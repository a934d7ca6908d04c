//! `vaquita chat`, driven through its standard input.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::program::{quantize, reference, success, vaquita};

#[test]
fn a_conversation_goes_on_and_can_be_reset() {
    let mut command = vaquita(["chat", "--temp", "0", "--hide-thinking"]);
    command.arg(reference()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = "723 * 8 = ?\n/stats\n/reset\n/nonsense\n723 * 8 = ?\n";
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("5784\n").count(), 2, "{text}");
    assert!(text.contains("answer "), "{text}");
    assert!(text.contains("/nonsense: no such command"), "{text}");
}

/// Talks to `model` with these lines on standard input.
fn talk(model: &Path, options: &[&str], lines: &str) -> String {
    let mut command = vaquita(["chat", "--temp", "0", "--hide-thinking"]);
    command.arg(model).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn three_hundred_turns_in_a_small_context_go_on_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let [model, session] = ["m.gguf", "talk"].map(|name| folder.path().join(name));
    success(&mut quantize(&reference(), &model));
    let turns: String = (0..300).map(|turn| format!("{} + 4 = ?\n", turn % 90 + 10)).collect();
    let session_text = session.to_str().unwrap();
    let options = ["--context", "512", "-n", "6", "--session", session_text];
    let text = talk(&model, &options, &turns);
    assert!(text.contains("the context of 512 tokens is full: dropped the "), "{text}");
    let dropped = fs::read_to_string(folder.path().join("talk.dropped.jsonl")).unwrap();
    let text = talk(&model, &options, "1 + 1 = ?\n");
    let resumed = text.split("(resumed ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let kept: usize = resumed.parse().unwrap();
    assert!(kept >= 2, "{text}");
    assert_eq!(dropped.lines().count() + kept, 600, "nothing is lost");
    assert!(dropped.starts_with("{\"role\":\"user\",\"content\":\"10 + 4 = ?\"}"), "{dropped}");
}

#[test]
fn a_full_context_stops_or_is_summarized_where_the_user_wants_that() {
    let turns: String = (0..30).map(|turn| format!("{} + 4 = ?\n", turn + 10)).collect();
    let options = |how| ["--context", "256", "-n", "6", "--on-full", how];
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved.json");
    let turns = turns + &format!("/save {}\n", saved.display());
    let text = talk(&reference(), &options("stop"), &turns);
    assert!(text.contains("is full: /save FILE keeps the conversation"), "{text}");
    let messages: Vec<serde_json::Value> =
        serde_json::from_str(&fs::read_to_string(&saved).unwrap()).unwrap();
    assert!(messages.len() > 10 && messages.len() < 60, "{}", messages.len());

    let text = talk(&reference(), &options("compact"), &turns);
    assert!(text.contains("dropped the "), "{text}");
    let saved = fs::read_to_string(&saved).unwrap();
    assert!(saved.contains("Summarize our conversation so far"), "{saved}");
}

#[test]
fn a_conversation_is_changed_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let [saved, note] = ["saved.json", "note.txt"].map(|name| folder.path().join(name));
    fs::write(&note, "723 * 8 = ?").unwrap();
    let (save, note) = (saved.display(), note.display());
    let lines = format!(
        "/regen\n723 * 7 = ?\n/edit 723 * 8 = ?\n/regen\n/system Be brief.\n/system\n\
         /save {save}\n/reset\n/load {save}\n/think sideways\n/file {note}\n/load nowhere\n"
    );
    let text = talk(&reference(), &[], &lines);
    assert!(text.contains("(there is no answer yet)"), "{text}");
    assert_eq!(text.matches("5784\n").count(), 2, "edited and regenerated: {text}");
    assert!(text.contains("Be brief.\n"), "{text}");
    assert!(text.contains("(resumed 3 messages)"), "{text}");
    assert!(text.contains("goes with the next message"), "{text}");
    assert!(text.contains("(allowed: on, off, low, high)"), "{text}");
    assert!(text.contains("(nowhere: "), "{text}");
}

/// Time that a process has computed, in ticks of 10 ms (proc(5): utime and stime).
#[cfg(target_os = "linux")]
fn cpu_ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_chat_that_waits_leaves_the_processor_alone_within_a_second() {
    use std::io::{Read, Write};
    use std::time::Duration;
    let mut chat = vaquita(["chat", "--temp", "0", "--threads", "4"]);
    chat.arg(reference()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut chat = chat.spawn().unwrap();
    chat.stdin.as_mut().unwrap().write_all(b"723 * 8 = ?\n").unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 256]);
    while !said.contains("5784") {
        let read = chat.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
        assert!(read > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu_ticks(chat.id());
    assert!(before > 0, "it has computed the answer");
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_ticks(chat.id()) - before;
    drop(chat.stdin.take());
    chat.wait().unwrap();
    // 1% of two seconds
    assert!(used <= 2, "{used} ticks of 10 ms");
}
