//! The bot as a program. In: the environment, see README.md. It ends when it is told to.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use tussah_telegram_bot::{Bot, config::Config};

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        eprintln!(
            "error: the bot takes no arguments; it is set up by the environment, see README.md"
        );
        return ExitCode::from(2);
    }
    match Config::from_env(|name| std::env::var(name).ok()) {
        Ok(config) => {
            // Ends with the process: an update that was not confirmed comes again.
            Bot::new(config).run(&AtomicBool::new(false));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}
