//! What is generated from the command line's definition: shell completions and the man page.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{self, Failure};
use crate::output;

pub(crate) fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lockctl", &mut script);
    write(&script)
}

/// One page: the program first, then every command with its options and examples.
pub(crate) fn man() -> Result<u8, Failure> {
    let mut program = Cli::command();
    program.build();
    let failed = |error| Failure::system("man page", &error);
    let mut page = Vec::new();
    let whole = clap_mangen::Man::new(program.clone());
    whole.render(&mut page).map_err(failed)?;
    for command in program.get_subcommands().filter(|c| !c.is_hide_set()) {
        let section = clap_mangen::Man::new(command.clone());
        let title = command.get_name().to_uppercase();
        page.extend_from_slice(format!(".SH \"COMMAND {title}\"\n").as_bytes());
        section.render_synopsis_section(&mut page).map_err(failed)?;
        section
            .render_description_section(&mut page)
            .map_err(failed)?;
        section.render_options_section(&mut page).map_err(failed)?;
        section.render_extra_section(&mut page).map_err(failed)?;
    }
    write(&page)
}

fn write(generated: &[u8]) -> Result<u8, Failure> {
    output::print(&String::from_utf8_lossy(generated))?;
    Ok(exit::OK)
}
