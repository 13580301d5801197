//! go.mod, go.sum and `.info` files.

use std::fmt::Write;

use crate::gomod::{GoMod, SummedFile, VersionInfo, parse_go_sum, semver};

pub fn run(data: &[u8]) {
    go_mod(data);
    let _either = VersionInfo::parse(data);
    if let Ok(text) = std::str::from_utf8(data) {
        go_sum(text);
    }
}

fn go_mod(file: &[u8]) {
    let lines = 1 + file.iter().filter(|b| **b == b'\n').count();
    let read = match GoMod::parse(file) {
        Ok(read) => read,
        Err(error) => return assert!((1..=lines).contains(&(error.line as usize)), "{error} of {lines} lines"),
    };
    assert!(read.requires.len() <= lines);
    for requirement in &read.requires {
        assert_eq!(semver::canonical_version(&requirement.version).as_ref(), Some(&requirement.version));
    }
    for minimum in ["1.17", "1.21"] {
        let _either = read.go_at_least(minimum);
    }
    let written = write(&read);
    assert_eq!(GoMod::parse(written.as_bytes()).as_ref(), Ok(&read), "written as\n{written}");
    // What no reader looks at changes nothing.
    let commented = [file, b"\n// the end\n\n"].concat();
    assert_eq!(GoMod::parse(&commented).as_ref(), Ok(&read));
    if !file.windows(2).any(|pair| pair == b"\\\n") {
        let crlf = file.split(|b| *b == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
        let read_crlf = GoMod::parse(&crlf).map(|crlf| (crlf.go, crlf.module, crlf.requires));
        assert_eq!(read_crlf, Ok((read.go, read.module, read.requires)));
    }
}

/// As the go command would write it, but with every path in quotes.
fn write(read: &GoMod) -> String {
    let mut text = String::new();
    for (verb, value) in [("module", read.module.as_deref().map(quoted)), ("go", read.go.clone()), ("toolchain", read.toolchain.clone())] {
        if let Some(value) = value {
            writeln!(text, "{verb} {value}").unwrap();
        }
    }
    text += "require (\n";
    for requirement in &read.requires {
        let comment = if requirement.indirect { " // indirect" } else { "" };
        writeln!(text, "\t{} {}{comment}", quoted(&requirement.path), requirement.version).unwrap();
    }
    text + ")\n"
}

fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.-_~".contains(c);
    let escaped: String = text.chars().map(|c| if plain(c) { c.to_string() } else { format!("\\U{:08x}", u32::from(c)) }).collect();
    format!("\"{escaped}\"")
}

fn go_sum(text: &str) {
    let lines = text.split('\n').count();
    let sums = match parse_go_sum(text) {
        Ok(sums) => sums,
        Err(error) => return assert!((1..=lines).contains(&error.line), "{error} of {lines} lines"),
    };
    assert!(sums.len() <= lines);
    let written: String = sums
        .iter()
        .map(|sum| {
            let kind = if sum.file == SummedFile::GoMod { "/go.mod" } else { "" };
            format!("{} {}{kind} {}\n", sum.module, sum.version, sum.hash)
        })
        .collect();
    assert_eq!(parse_go_sum(&written).as_ref(), Ok(&sums), "written as\n{written}");
}
