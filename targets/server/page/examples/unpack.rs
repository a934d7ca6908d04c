//! Writes the page's files and headers to a folder, for the tests in a browser: `unpack FOLDER`.

use std::path::PathBuf;
use std::{env, fs};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).expect("usage: unpack FOLDER"));
    fs::create_dir_all(&folder)?;
    let headers = vaquita_page::headers();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    fs::write(folder.join("headers"), lines)?;
    let mut index = String::new();
    for (i, file) in vaquita_page::files().iter().enumerate() {
        fs::write(folder.join(i.to_string()), file.body)?;
        index += &format!("{i}\t{}\t{}\t{}\n", file.path, file.content_type, file.etag);
    }
    fs::write(folder.join("index"), index)
}
