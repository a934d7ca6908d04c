//! `vaquita chat`, driven through its standard input.

use std::fs;
use std::process::Stdio;

use crate::program::{reference, vaquita};

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
