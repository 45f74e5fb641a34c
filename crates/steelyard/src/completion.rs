//! Completion in shells. The shell's script is a few lines that ask this program; what it answers comes
//! from the command line's own tree and from the descriptions of the servers.

use std::process::ExitCode;

use clap::Command;

use crate::client::describe::Description;
use crate::client::login;
use crate::client::profile::Profiles;
use crate::{cli, out};

/// The word with which the scripts ask; it is in no help.
pub const ASK: &str = "__complete";

/// `steelyard completion`.
#[derive(clap::Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// Prints the script of a shell.
///
/// # Errors
/// When standard output fails.
pub fn print(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    out::bytes(script(args.shell).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let names = cli::NAMES.join(" ");
    match shell {
        // What ends in = is to be gone on with, and where we know nothing the shell offers files.
        Shell::Bash => format!(
            r#"_steelyard_words() {{
    local IFS=$'\n'
    COMPREPLY=($("${{COMP_WORDS[0]}}" {ASK} "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null))
    [[ ${{#COMPREPLY[@]}} -gt 0 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -o bashdefault -o default -F _steelyard_words {names}
"#
        ),
        Shell::Zsh => format!(
            r#"#compdef {names}
_steelyard_words() {{
    local -a found plain open
    found=("${{(@f)$("${{words[1]}}" {ASK} "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
    plain=(${{found:#*=}})
    open=(${{(M)found:#*=}})
    (( $#plain )) && compadd -a plain
    (( $#open )) && compadd -S '' -a open
    (( $#plain + $#open )) || _files
}}
compdef _steelyard_words {names}
"#
        ),
        Shell::Fish => cli::NAMES
            .iter()
            .map(|name| {
                format!(
                    "complete -c {name} -a '({name} {ASK} (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'\n"
                )
            })
            .collect(),
    }
}

/// Answers a shell: `words` is what stands behind the name of the program, the last of them unfinished.
///
/// # Errors
/// When standard output fails.
pub fn answer(name: &str, root: &Command, words: &[String]) -> anyhow::Result<ExitCode> {
    let profiles = Profiles::open().ok();
    let (before, last) = match words.split_last() {
        Some((last, before)) => (before, last.as_str()),
        None => (&[][..], ""),
    };
    let mut found = if name == "maas" {
        client(Some(root), profiles.as_ref(), before)
    } else if before.first().is_some_and(|w| w == "maas") {
        client(None, profiles.as_ref(), &before[1..])
    } else {
        tree(root, before)
    };
    found.retain(|f| f.starts_with(last));
    found.sort();
    found.dedup();
    for f in found {
        out::line(&f)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What may follow in the tree of our own commands.
fn tree(root: &Command, before: &[String]) -> Vec<String> {
    let mut command = root;
    for word in before {
        if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    // The value of an option that takes one of a few.
    if let Some(option) = before.last().and_then(|w| w.strip_prefix("--"))
        && let Some(arg) = command
            .get_arguments()
            .find(|a| a.get_long() == Some(option))
        && arg.get_action().takes_values()
    {
        return values(arg);
    }
    let commands = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(|c| c.get_name().to_owned());
    let options = command
        .get_arguments()
        .filter_map(|a| Some(format!("--{}", a.get_long()?)));
    let positional = command
        .get_arguments()
        .filter(|a| a.is_positional())
        .flat_map(values);
    commands
        .chain(options)
        .chain(positional)
        .chain(["--help".to_owned()])
        .collect()
}

fn values(arg: &clap::Arg) -> Vec<String> {
    arg.get_possible_values()
        .iter()
        .map(|v| v.get_name().to_owned())
        .collect()
}

/// What may follow for the client. `root` is there under the name `maas`, which knows the words of
/// administration too.
fn client(root: Option<&Command>, profiles: Option<&Profiles>, before: &[String]) -> Vec<String> {
    let names = || {
        let all = profiles.into_iter().flat_map(Profiles::iter);
        all.map(|(n, _)| n.to_owned())
    };
    let Some(first) = before.first() else {
        let words = login::WORDS.iter().map(|w| (*w).to_owned());
        let admin = cli::ADMIN_WORDS.iter().map(|w| (*w).to_owned());
        return words
            .chain(admin.filter(|_| root.is_some()))
            .chain(names())
            .chain(["--help".to_owned()])
            .collect();
    };
    match (first.as_str(), root) {
        ("logout", _) => return names().collect(),
        ("login", _) => {
            let mut found: Vec<String> = ["--cacerts", "--insecure", "--help"]
                .map(str::to_owned)
                .to_vec();
            if before.len() == 1 {
                found.extend(names());
            }
            return found;
        }
        (word, Some(root)) if cli::ADMIN_WORDS.contains(&word) => return tree(root, before),
        _ => {}
    }
    let Some(profile) = profiles.and_then(|p| p.get(first)) else {
        return Vec::new();
    };
    let Ok(description) = Description::new(&profile.description, profile.credentials.is_some())
    else {
        return Vec::new();
    };
    let words: Vec<&String> = before[1..].iter().filter(|w| !w.starts_with('-')).collect();
    let Some(resource) = words.first() else {
        let all = description.resources.iter().map(|r| r.name.clone());
        return all.chain(["--help".to_owned()]).collect();
    };
    let Some(resource) = description.resource(resource) else {
        return Vec::new();
    };
    let Some(action) = words.get(1) else {
        let all = resource.actions.iter().map(|a| a.name.clone());
        return all.chain(["--help".to_owned()]).collect();
    };
    let Some(action) = resource.action(action) else {
        return Vec::new();
    };
    let options = ["--debug", "--help", "--insecure", "--json", "--table"].map(str::to_owned);
    if words.len() - 2 < resource.params.len() {
        return options.to_vec();
    }
    let params = action.params().into_iter().map(|p| format!("{}=", p.name));
    params.chain(options).collect()
}
