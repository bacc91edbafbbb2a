//! The arguments of the verbs that need no agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `publish`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside publish ./blog --store /srv/salt/packages\n  \
    flipside publish --wheels dist --name shop --version 2.1 --wsgi shop.wsgi:application \\\n      \
    --settings shop.settings --store /srv/salt/packages --tag latest\n\nA project's pyproject.toml may hold \
    a table [tool.flipside] with app, wsgi, settings, extras and hooks.")]
pub(crate) struct PublishArgs {
    /// The project: a folder with pyproject.toml or manage.py [default: .]
    #[arg(value_name = "DIR", conflicts_with = "wheels")]
    pub(crate) dir: Option<PathBuf>,
    /// A folder with ready wheels: the app's own and all that it depends on; nothing is built
    #[arg(long, value_name = "WHEELDIR", requires = "name")]
    pub(crate) wheels: Option<PathBuf>,
    /// The app's name [default: what the project says]
    #[arg(long, value_name = "APP")]
    pub(crate) name: Option<String>,
    /// The version [default: what the app's wheel says]
    #[arg(long = "version", value_name = "VERSION")]
    pub(crate) release_version: Option<String>,
    /// The entry, as module:attribute [default: found in the app's wheel]
    #[arg(long, value_name = "MOD:ATTR")]
    pub(crate) wsgi: Option<String>,
    /// Django's settings module [default: found in the app's wheel]
    #[arg(long, value_name = "MOD")]
    pub(crate) settings: Option<String>,
    /// A JSON file with the release's hooks
    #[arg(long, value_name = "FILE")]
    pub(crate) hooks: Option<PathBuf>,
    /// The tag to put on the release; may be repeated [default: latest]
    #[arg(long, short, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Let a file pass that looks like a secret or a database: its name, or its path in the wheel
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_file: Vec<String>,
    /// The program uv [default: the one on PATH]
    #[arg(long, value_name = "PATH", env = "FLIPSIDE_UV", hide_env_values = true)]
    pub(crate) uv: Option<PathBuf>,
    /// The Python to resolve and build for: the hosts' minor version
    #[arg(long, value_name = "PATH", env = "FLIPSIDE_PYTHON", hide_env_values = true)]
    pub(crate) python: Option<PathBuf>,
}

/// `secret`.
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) verb: SecretVerb,
}

/// What to do about secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    /// Encrypt stdin for pillar: only the hosts whose recipients are named can read it
    #[command(after_help = "Example: printf %s \"$KEY\" | flipside secret encrypt --recipient age1…")]
    Encrypt {
        /// A recipient, age1… or an SSH public key; may be repeated
        #[arg(short, long, required = true, value_name = "RECIPIENT")]
        recipient: Vec<String>,
    },
    /// Print this host's recipient
    #[command(after_help = "Examples:\n  flipside secret recipient\n  \
        flipside secret recipient --identity /var/lib/flipside/identity")]
    Recipient {
        /// Read it from this identity file instead of asking the agent
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
    },
}

/// `app`.
#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    #[command(subcommand)]
    pub(crate) verb: AppVerb,
}

/// What to do with a project.
#[derive(Debug, Subcommand)]
pub(crate) enum AppVerb {
    /// Write .flipside-app, which publish and deploy read their defaults from
    #[command(alias = "new", after_help = "Example: flipside app bootstrap blog -d ./blog")]
    Bootstrap {
        /// The app's name
        #[arg(value_name = "NAME")]
        name: String,
        /// The project's folder; made if absent
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// The deploy template
        #[arg(short, long, value_name = "TEMPLATE", default_value = "python-django-sqlite")]
        template: String,
        /// The Salt target that runs it
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
    },
    /// Run the project's own tests in a fresh environment
    #[command(after_help = "Examples:\n  flipside app test\n  flipside app test -d ./blog -- -k login")]
    Test {
        /// The app's name, if it should be checked against .flipside-app
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// The project's folder
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// The program uv [default: the one on PATH]
        #[arg(long, value_name = "PATH", env = "FLIPSIDE_UV", hide_env_values = true)]
        uv: Option<PathBuf>,
        /// The Python to test with
        #[arg(long, value_name = "PATH", env = "FLIPSIDE_PYTHON", hide_env_values = true)]
        python: Option<PathBuf>,
        /// Arguments for the test runner
        #[arg(value_name = "ARGS", last = true)]
        arguments: Vec<String>,
    },
}

/// `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example: flipside doctor")]
pub(crate) struct DoctorArgs {
    /// The program uv [default: the one on PATH]
    #[arg(long, value_name = "PATH", env = "FLIPSIDE_UV", hide_env_values = true)]
    pub(crate) uv: Option<PathBuf>,
}
