//! Writes man pages and completions into a folder: `cargo run --example manual -- [NAME] FOLDER`, under the name of a program of
//! your own, or `ferricorn`. A program beside the server and not a subcommand of it, so that no server carries what makes them.

use clap::Command;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

/// What no flag says.
const MORE: &str = r#".SH "EXIT STATUS"
.TP
0
stopped as asked
.TP
1
a failure at run time, such as an address in use
.TP
2
the settings are wrong
.TP
3
no worker ever became ready
.SH SIGNALS
.TP
TERM
stop: open requests are finished, for at most graceful_timeout
.TP
INT, QUIT
stop quickly
.TP
HUP
read the settings again; new workers replace the old ones once they have proved to serve
.TP
TTIN, TTOU
one worker more, one less
.TP
USR1
reopen the logs
.TP
USR2
start the binary anew with the same sockets; when it serves, this master leaves
"#;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (name, folder) = match words.as_slice() {
        [folder] => ("ferricorn", folder),
        [name, folder] => (name.as_str(), folder),
        _ => {
            eprintln!("manual [NAME] FOLDER");
            return ExitCode::from(2);
        }
    };
    match write_all(name, Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(name: &str, folder: &Path) -> io::Result<()> {
    let (server, control) = ferricorn::command_lines();
    // A command's own name is one that lives as long as the program.
    let name: &'static str = name.to_owned().leak();
    let server = server.name(name);
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{name}.1")), ascii(&server_page(&server, name)?))?;
    fs::write(folder.join(format!("{name}-ctl.1")), ascii(&control_page(&control, name)?))?;
    let mut whole = server.subcommand(control);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut whole, name, folder)?;
    }
    Ok(())
}

fn page(command: Command, title: &str) -> io::Result<String> {
    let mut roff = Vec::new();
    // Without a date: it would change with each day.
    Man::new(command).title(title).section("1").date("").manual("Ferricorn").render(&mut roff)?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn server_page(server: &Command, name: &str) -> io::Result<String> {
    let page = page(server.clone(), &name.to_uppercase())?;
    Ok(format!("{page}{MORE}.SH \"SEE ALSO\"\n.BR {}\\-ctl (1)\n", escaped(name)))
}

/// The commands' pages as parts of one.
fn control_page(control: &Command, name: &str) -> io::Result<String> {
    let called = format!("{name} ctl");
    let command = control.clone().name(format!("{name}-ctl")).bin_name(&called);
    let mut text = page(command, &format!("{}-CTL", name.to_uppercase()))?;
    // The list of commands names a page for each.
    text = text.replace(&format!("{}\\-ctl\\-", escaped(name)), "").replace("(1)\n", "\n");
    for one in control.get_subcommands() {
        let word = one.get_name();
        let man = Man::new(one.clone().bin_name(format!("{called} {word}")));
        let mut roff = Vec::new();
        man.render_synopsis_section(&mut roff)?;
        man.render_description_section(&mut roff)?;
        man.render_options_section(&mut roff)?;
        let parts = String::from_utf8_lossy(&roff).replace(".SH ", ".SS ");
        text += &format!(".SH \"COMMAND {}\"\n{parts}", word.to_uppercase());
    }
    Ok(format!("{text}.SH \"SEE ALSO\"\n.BR {} (1)\n", escaped(name)))
}

fn escaped(name: &str) -> String {
    name.replace('-', "\\-")
}

/// roff's own way to write what is beyond ASCII.
fn ascii(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if character.is_ascii() {
            out.push(character);
        } else {
            let _ = write!(out, "\\[u{:04X}]", u32::from(character));
        }
        out
    })
}
