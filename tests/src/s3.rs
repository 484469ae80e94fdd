//! Real servers that speak S3, each with a bucket and a key of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use tranship_cache::tier::object::Options;

/// The bucket that each server has.
pub const BUCKET: &str = "blocks";
/// Names the key.
pub const KEY: &str = "GK31c2f218a2e44f485b94239e";
/// Its secret: nothing that a test prints may have it in it.
pub const SECRET: &str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// moto: quick, complete, and asks for no credentials.
    Moto,
    /// s3s-fs: files in a directory; verifies signatures.
    S3sFs,
    /// Garage: a real one.
    Garage,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 3] = [Self::Moto, Self::S3sFs, Self::Garage];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moto => "moto",
            Self::S3sFs => "s3s-fs",
            Self::Garage => "garage",
        }
    }

    /// Asks for the right signature.
    #[must_use]
    pub const fn verifies(self) -> bool {
        !matches!(self, Self::Moto)
    }

    fn program(self) -> Option<PathBuf> {
        let name = if self == Self::Moto { "moto_server" } else { self.name() };
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(target.join("tools/bin")).chain(std::env::split_paths(&path));
        folders.map(|folder| folder.join(name)).find(|program| program.is_file())
    }
}

/// The servers to test with: those that `TRANSHIP_S3` names (`moto,s3s-fs,garage`), or moto; said when one
/// of them is not there.
///
/// # Panics
/// When it names another: tests that nobody sees skipped show nothing.
#[must_use]
pub fn servers() -> Vec<Server> {
    let asked = std::env::var("TRANSHIP_S3").unwrap_or_else(|_| "moto".to_owned());
    kinds(&asked).into_iter().filter_map(server).collect()
}

/// The servers of a list of names.
fn kinds(names: &str) -> Vec<Kind> {
    let kind = |name: &str| {
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        known.unwrap_or_else(|| {
            panic!("TRANSHIP_S3 names {name:?}; moto, s3s-fs and garage are known")
        })
    };
    names.split(',').map(str::trim).map(kind).collect()
}

/// One server; said when it is not there.
#[must_use]
pub fn server(kind: Kind) -> Option<Server> {
    let Some(program) = kind.program() else {
        let name = kind.name();
        #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
        {
            eprintln!("skipped: there is no {name}; scripts/s3-servers {name} installs it");
        }
        return None;
    };
    Some(Server::start(kind, &program))
}

/// A server of this test's own. Ends when dropped.
pub struct Server {
    /// Which one.
    pub kind: Kind,
    /// Host and port.
    pub address: String,
    data: tempfile::TempDir,
    program: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn start(kind: Kind, program: &Path) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let (address, program) = (free_address(), program.to_owned());
        let mut server = Self { kind, address, data, program, child: None };
        server.prepare();
        server.run();
        server.create_bucket();
        server
    }

    /// How it is reached: without TLS, over the loopback interface.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What opens its bucket.
    #[must_use]
    pub fn options(&self, node: &str) -> Options {
        options_at(&self.endpoint(), node)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, at the same address with the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Changes a byte of each copy of these bytes below a path, behind everybody's back; how many.
    ///
    /// # Panics
    /// When it cannot be done.
    #[must_use]
    pub fn spoil(&self, below: &str, bytes: &[u8]) -> usize {
        let (endpoint, below) = (self.endpoint(), below.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let store = client(&endpoint);
            let path = object_store::path::Path::from(below);
            let objects = store.list(Some(&path)).try_collect::<Vec<_>>().await.unwrap();
            let mut spoilt = 0;
            for object in &objects {
                let there = store.get(&object.location).await.unwrap().bytes().await.unwrap();
                let mut all = there.to_vec();
                let copies = there.windows(bytes.len()).enumerate();
                for (at, _) in copies.filter(|(_, some)| *some == bytes) {
                    all[at + 5] ^= 8;
                    spoilt += 1;
                }
                store.put(&object.location, all.into()).await.unwrap();
            }
            spoilt
        })
    }

    /// Deletes the objects below a path behind everybody's back; how many.
    ///
    /// # Panics
    /// When it cannot be done.
    #[must_use]
    pub fn remove(&self, below: &str) -> usize {
        let (endpoint, below) = (self.endpoint(), below.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let store = client(&endpoint);
            let path = object_store::path::Path::from(below);
            let objects = store.list(Some(&path)).try_collect::<Vec<_>>().await.unwrap();
            for object in &objects {
                store.delete(&object.location).await.unwrap();
            }
            objects.len()
        })
    }

    fn prepare(&self) {
        let root = self.data.path();
        match self.kind {
            Kind::Moto => {}
            Kind::S3sFs => fs::create_dir(root.join(BUCKET)).expect("a directory"),
            Kind::Garage => {
                let [rpc, admin] = [free_address(), free_address()];
                let path = |name| root.join(name).display().to_string();
                let config = format!(
                    "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"sqlite\"\n\
                     replication_factor = 1\nrpc_bind_addr = {rpc:?}\nrpc_public_addr = {rpc:?}\n\
                     rpc_secret = \"{SECRET}\"\n[s3_api]\ns3_region = \"us-east-1\"\n\
                     api_bind_addr = {:?}\nroot_domain = \".s3.garage\"\n\
                     [admin]\napi_bind_addr = {admin:?}\n",
                    path("meta"),
                    path("data"),
                    self.address
                );
                fs::write(root.join("garage.toml"), config).expect("a file");
            }
        }
    }

    fn run(&mut self) {
        let (host, port) = self.address.split_once(':').expect("an address");
        let root = self.data.path();
        let mut command = Command::new(&self.program);
        // The line that says that it listens, and where it is said.
        let (says, on_stdout) = match self.kind {
            Kind::Moto => {
                command.args(["-H", host, "-p", port]);
                ("Running on", false)
            }
            Kind::S3sFs => {
                command.args(["--host", host, "--port", port]);
                command.args(["--access-key", KEY, "--secret-key", SECRET]).arg(root);
                command.env("RUST_LOG", "s3s_fs=info");
                ("server is running", true)
            }
            Kind::Garage => {
                command.arg("-c").arg(root.join("garage.toml")).arg("server");
                command.env("RUST_LOG", "garage=info");
                ("S3 API server listening", false)
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let (said, other): (Box<dyn Read + Send>, Box<dyn Read + Send>) = match on_stdout {
            true => (Box::new(stdout), Box::new(stderr)),
            false => (Box::new(stderr), Box::new(stdout)),
        };
        drain(other);
        let mut said = BufReader::new(said);
        let mut line = String::new();
        while !line.contains(says) {
            line.clear();
            let read = said.read_line(&mut line).expect("it says something");
            assert!(read > 0, "{} ended before it listened", self.kind.name());
        }
        drain(Box::new(said));
        self.child = Some(child);
    }

    fn create_bucket(&self) {
        match self.kind {
            Kind::Moto => {
                let answer = request(&self.address, "PUT", &format!("/{BUCKET}"));
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
            Kind::S3sFs => {}
            Kind::Garage => {
                let id = self.garage(&["node", "id", "-q"]);
                let id = id.split('@').next().expect("an id").trim().to_owned();
                self.garage(&["layout", "assign", "-z", "dc1", "-c", "8G", &id]);
                self.garage(&["layout", "apply", "--version", "1"]);
                self.garage(&["bucket", "create", BUCKET]);
                self.garage(&["key", "import", "--yes", KEY, SECRET]);
                let allow =
                    ["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", KEY];
                self.garage(&allow);
            }
        }
    }

    fn garage(&self, args: &[&str]) -> String {
        let config = self.data.path().join("garage.toml");
        let output = Command::new(&self.program).arg("-c").arg(config).args(args).output();
        let output = output.expect("garage runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "garage {args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What opens the bucket behind an endpoint.
#[must_use]
pub fn options_at(endpoint: &str, node: &str) -> Options {
    Options::new(format!("s3://{BUCKET}/cache"), node)
        .with("endpoint", endpoint)
        .with("region", "us-east-1")
        .with("access_key_id", KEY)
        .with("secret_access_key", SECRET)
}

/// A client of its own, not the tier's. TLS is set up by whoever opened a bucket before.
fn client(endpoint: &str) -> impl ObjectStore {
    object_store::aws::AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(endpoint)
        .with_region("us-east-1")
        .with_access_key_id(KEY)
        .with_secret_access_key(SECRET)
        .with_allow_http(true)
        .build()
        .expect("a client")
}

/// Reads what nobody is interested in, so that whoever says it is not held up.
fn drain(mut from: Box<dyn Read + Send>) {
    std::thread::spawn(move || std::io::copy(&mut from, &mut std::io::sink()));
}

/// An address of the loopback interface that was free just now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it has one").to_string()
}

/// A request without a signature or a body; the whole answer.
fn request(address: &str, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named() {
        assert_eq!(kinds("moto"), [Kind::Moto]);
        assert_eq!(kinds("garage, s3s-fs"), [Kind::Garage, Kind::S3sFs]);
    }

    #[test]
    #[should_panic(expected = "TRANSHIP_S3 names \"minio\"")]
    fn a_server_that_nobody_knows_is_no_skip() {
        let _ = kinds("moto,minio");
    }
}
