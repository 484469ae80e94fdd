//! A server that speaks S3, for one measurement.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bench::Error;

/// The only one in it.
const BUCKET: &str = "bench";
/// s3s-fs wants to know them, moto does not look.
const KEY: &str = "tranship-bench";
const SECRET: &str = "tranship-bench-secret";
/// Servers that are looked for, the best first, and the line that says that they listen.
const SERVERS: [(&str, &str, &str); 2] =
    [("s3s-fs", "s3s-fs", "server is running"), ("moto", "moto_server", "Running on")];

/// Ends when dropped.
pub(super) struct Server {
    /// Which one.
    pub(super) name: &'static str,
    address: String,
    child: Child,
    _data: TempDir,
}

impl Server {
    /// The first of those that are in the `PATH`; none when none is.
    pub(super) fn start() -> Result<Option<Self>, Error> {
        let found = SERVERS
            .into_iter()
            .find_map(|(name, program, says)| find(program).map(|program| (name, program, says)));
        let Some((name, program, says)) = found else { return Ok(None) };
        Self::run(name, &program, says)
            .map(Some)
            .map_err(|source| Error::Server { program: program.display().to_string(), source })
    }

    fn run(name: &'static str, program: &Path, says: &str) -> io::Result<Self> {
        let data = TempDir::new()?;
        std::fs::create_dir(data.path().join(BUCKET))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = Command::new(program);
        if name == "moto" {
            command.args(["-H", &host, "-p", &port]).stdout(Stdio::null()).stderr(Stdio::piped());
        } else {
            command.args(["--host", &host, "--port", &port]);
            command.args(["--access-key", KEY, "--secret-key", SECRET]).arg(data.path());
            command.env("RUST_LOG", "s3s_fs=info").stdout(Stdio::piped()).stderr(Stdio::null());
        }
        let child = command.stdin(Stdio::null()).spawn()?;
        let mut server = Self { name, address: address.to_string(), child, _data: data };
        let told: Box<dyn Read + Send> =
            match (server.child.stdout.take(), server.child.stderr.take()) {
                (Some(stdout), _) => Box::new(stdout),
                (None, Some(stderr)) => Box::new(stderr),
                (None, None) => return Err(io::Error::other("it says nothing")),
            };
        let mut told = BufReader::new(told);
        let mut line = String::new();
        while !line.contains(says) {
            line.clear();
            if told.read_line(&mut line)? == 0 {
                return Err(io::Error::other("it ended before it listened"));
            }
        }
        // It would be held up if nobody read what it says.
        std::thread::spawn(move || io::copy(&mut told, &mut io::sink()));
        if name == "moto" {
            server.create_bucket()?;
        }
        Ok(server)
    }

    fn create_bucket(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        let address = &self.address;
        write!(
            stream,
            "PUT /{BUCKET} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )?;
        stream.read_to_string(&mut String::new()).map(drop)
    }

    pub(super) fn url(&self) -> String {
        format!("s3://{BUCKET}")
    }

    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let pairs = [
            ("endpoint", endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", KEY),
            ("secret_access_key", SECRET),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}
