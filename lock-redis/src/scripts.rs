//! The scripts, and how one is called.

use std::sync::LazyLock;

use redis::Cmd;

/// A script and the hash by which a server that has run it knows it.
#[derive(Debug)]
pub(crate) struct Script {
    body: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $($part:literal),+;)*) => {
        $(
            pub(crate) static $name: Script = {
                const BODY: &str =
                    concat!($(include_str!(concat!("lua/", $part, ".lua")), "\n"),+);
                Script {
                    body: BODY,
                    hash: LazyLock::new(|| redis::Script::new(BODY).get_hash().to_owned()),
                }
            };
        )*

        /// Every script there is.
        pub(crate) static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    // In these two the usual case comes before the queue: making the functions of a file is a good
    // part of what a script costs.
    ACQUIRE = "lock", "acquire", "queue", "acquire_queue";
    RELEASE = "lock", "release", "queue", "release_queue";
    RENEW = "lock", "queue", "renew";
    PASS = "lock", "queue", "pass";
    REPLACE = "lock", "queue", "replace";
    PLACE = "lock", "queue", "place";
    BREAK = "lock", "queue", "break";
    INSPECT = "lock", "queue", "inspect";
    USED = "lock", "used";
    NAMESPACE = "lock", "namespace";
}

/// One call of a script.
#[derive(Debug)]
pub(crate) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<String>,
}

impl Call {
    pub(crate) fn new(script: &'static Script) -> Self {
        Self {
            script,
            keys: Vec::new(),
            args: Vec::new(),
        }
    }

    pub(crate) fn keys(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.keys.extend(keys);
        self
    }

    pub(crate) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// The call by the script's hash: what is sent first.
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// The call with the script's text, for a server that has forgotten it. That also teaches it,
    /// and unlike `SCRIPT LOAD` and a second `EVALSHA` it cannot fail because of a flush in between.
    pub(crate) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.script.body)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for arg in &self.args {
            command.arg(arg);
        }
        command
    }
}
