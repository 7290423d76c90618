//! What goes into the images.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layer::Layer;
use crate::tools;

/// One image, under several tags.
pub struct Recipe {
    /// Repository name.
    pub name: &'static str,
    /// Tags.
    pub tags: &'static [&'static str],
    /// Layers from the bottom up.
    pub layers: &'static [fn() -> Result<Layer>],
    /// The image configuration, without environment.
    pub config: fn() -> Value,
}

/// Every image.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "busybox", tags: &["1.36", "latest"], layers: &[busybox], config: || json!({"Cmd": ["sh"]}) },
    Recipe {
        name: "nginx",
        tags: &["1.27", "1.28"],
        layers: &[busybox, nginx],
        config: || json!({"Cmd": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}),
    },
    Recipe {
        name: "redis",
        tags: &["7"],
        layers: &[busybox, redis],
        config: || json!({"Cmd": ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"], "ExposedPorts": {"6379/tcp": {}}}),
    },
    Recipe {
        name: "python",
        tags: &["3.11"],
        layers: &[busybox, python],
        config: || json!({"Cmd": ["python3"], "User": "1000:1000"}),
    },
    Recipe {
        name: "uwsgi",
        tags: &["2.0"],
        layers: &[busybox, python, uwsgi],
        config: || json!({"Cmd": ["uwsgi", "--help"], "User": "1000:1000", "ExposedPorts": {"8080/tcp": {}}}),
    },
    Recipe {
        name: "postgres",
        tags: &["15"],
        layers: &[busybox, postgres],
        config: || json!({"Cmd": ["postgres"], "User": "1000:1000", "ExposedPorts": {"5432/tcp": {}}, "StopSignal": "SIGINT"}),
    },
    Recipe {
        name: "journal-api",
        tags: &["1.0"],
        layers: &[busybox, journal_api],
        config: || json!({"Cmd": ["httpd", "-f", "-vv", "-p", "8080", "-h", "/srv"], "User": "1000:1000", "ExposedPorts": {"8080/tcp": {}}}),
    },
];

fn base() -> Layer {
    let mut layer = Layer::default();
    for path in ["dev", "proc", "sys", "run", "var/run", "etc", "root"] {
        layer.dir(path, 0o755);
    }
    layer.dir("tmp", 0o1777);
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n", 0o644);
    layer.file("etc/group", "root:x:0:\napp:x:1000:\nnogroup:x:65534:\nwww-data:x:33:\n", 0o644);
    layer.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
    layer
}

fn busybox() -> Result<Layer> {
    let mut layer = base();
    layer.file("bin/busybox", fs::read("/bin/busybox").context("/bin/busybox")?, 0o755);
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    for name in String::from_utf8_lossy(&applets.stdout).split_whitespace().filter(|name| *name != "busybox") {
        layer.link(&format!("bin/{name}"), "busybox");
    }
    Ok(layer)
}

/// getent, and what the C library loads by name at run time.
fn with_glibc(layer: &mut Layer) -> Result<&mut Layer> {
    let directory = "/lib/x86_64-linux-gnu";
    let wanted = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1"];
    let paths: Vec<_> = wanted.iter().map(|name| format!("{directory}/{name}")).collect();
    let there: Vec<_> = paths.iter().map(String::as_str).filter(|path| fs::exists(path).unwrap_or(false)).collect();
    layer.host(&there)?.host(&["/usr/bin/getent"])
}

const NGINX_CONF: &str = "daemon off; worker_processes 1; error_log /dev/stderr; pid /tmp/nginx.pid;
events { worker_connections 512; }
http { include /etc/nginx/mime.types; access_log /dev/stdout; include /etc/nginx/conf.d/*.conf; }
";
const NGINX_SITE: &str = "server { listen 80; root /usr/share/nginx/html; index index.html; }\n";

fn nginx() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/sbin/nginx"])?.dir("var/log/nginx", 0o755).dir("var/lib/nginx", 0o755);
    layer.file("etc/nginx/mime.types", fs::read("/etc/nginx/mime.types")?, 0o644);
    layer.file("etc/nginx/nginx.conf", NGINX_CONF, 0o644);
    layer.file("etc/nginx/conf.d/default.conf", NGINX_SITE, 0o644);
    layer.file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n", 0o644);
    Ok(layer)
}

fn redis() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/bin/redis-server", "/usr/bin/redis-cli"])?.dir("data", 0o777);
    Ok(layer)
}

/// Parts of Python's library that no server needs: tests, tools, graphics.
const PYTHON_WITHOUT: &[&str] = &[
    "test",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "tkinter",
    "turtledemo",
    "config-3.11-x86_64-linux-gnu",
];
/// Debian's Python packages in the image, with what they import.
const PYTHON_WITH: &[&str] = &["redis", "psycopg2", "async_timeout", "deprecated", "packaging", "wrapt"];

/// Python with its library and clients of Redis and PostgreSQL, compiled ahead: containers start without doing it again.
fn python() -> Result<Layer> {
    let stage = tools::work_dir().join("images/.python");
    if stage.exists() {
        tools::remove(&stage)?;
    }
    let library = stage.join("usr/lib/python3.11");
    copy_tree(Path::new("/usr/lib/python3.11"), &library, &|name| name != "__pycache__" && !PYTHON_WITHOUT.contains(&name))?;
    let packages = "usr/lib/python3/dist-packages";
    for package in PYTHON_WITH {
        copy_tree(&Path::new("/").join(packages).join(package), &stage.join(packages).join(package), &|name| {
            name != "__pycache__"
        })?;
    }
    // Times of a layer's files are 0, so that what is compiled cannot be compared with its source by time.
    let compile = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s"];
    tools::run(Command::new("/usr/bin/python3.11").args(compile).arg(&stage).arg(&stage))?;
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/bin/python3.11"])?.link("usr/bin/python3", "python3.11");
    // What extension modules are linked to: the database's client, TLS, SQLite.
    let modules =
        ["usr/lib/python3.11/lib-dynload", &format!("{packages}/psycopg2")].map(|directory| Path::new("/").join(directory));
    for module in modules.iter().map(fs::read_dir).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        let path = module?.path();
        if path.extension().is_some_and(|end| end == "so") {
            layer.host(&[&path.to_string_lossy()])?;
        }
    }
    layer.tree_at(&stage, "")?;
    tools::remove(&stage)?;
    Ok(layer)
}

/// Copies a directory without the entries whose names are not wanted.
fn copy_tree(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| wanted(name)) else { continue };
        if path.is_dir() {
            copy_tree(&path, &to.join(name), wanted)?;
        } else if path.exists() {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The uWSGI application server with its plugins for HTTP and Python.
fn uwsgi() -> Result<Layer> {
    let mut layer = Layer::default();
    layer.host(&[
        "/usr/bin/uwsgi-core",
        "/usr/lib/uwsgi/plugins/python311_plugin.so",
        "/usr/lib/uwsgi/plugins/http_plugin.so",
    ])?;
    layer.link("usr/bin/uwsgi", "uwsgi-core");
    Ok(layer)
}

const POSTGRES: &str = "/usr/lib/postgresql/15";

/// PostgreSQL with the programs that a server and its clients need, and the extension of its procedural language.
fn postgres() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?;
    for program in ["postgres", "initdb", "pg_ctl", "pg_isready", "pg_dump", "psql", "pgbench"] {
        layer
            .host(&[&format!("{POSTGRES}/bin/{program}")])?
            .link(&format!("usr/bin/{program}"), &format!("{POSTGRES}/bin/{program}"));
    }
    for library in ["plpgsql.so", "dict_snowball.so"] {
        layer.host(&[&format!("{POSTGRES}/lib/{library}")])?;
    }
    let share = "/usr/share/postgresql/15";
    for entry in fs::read_dir(share)? {
        let path = entry?.path();
        if path.is_file() || ["timezonesets", "tsearch_data"].iter().any(|name| path.ends_with(name)) {
            layer.tree_at(&path, &path.to_string_lossy())?;
        }
    }
    for name in ["plpgsql.control", "plpgsql--1.0.sql"] {
        layer.host(&[&format!("{share}/extension/{name}")])?;
    }
    layer.tree_at(Path::new("/usr/share/zoneinfo"), "usr/share/zoneinfo")?;
    layer.dir("var/run/postgresql", 0o1777);
    Ok(layer)
}

/// Keeps journal entries in Redis: GET lists them, POST adds one.
const JOURNAL: &str = r#"#!/bin/sh
redis() { redis-cli -h "${REDIS_HOST:-redis}" -a "$REDIS_PASSWORD" --no-auth-warning "$@" 2>&1; }
printf 'Content-Type: text/plain\r\n\r\n'
if [ "$REQUEST_METHOD" = POST ]; then
  entry=$(head -c "${CONTENT_LENGTH:-0}")
  redis RPUSH journal "$entry" >/dev/null && echo "added: $entry"
else
  echo "${JOURNAL_TITLE:-Journal} (served by $HOSTNAME)"
  redis LRANGE journal 0 -1
fi
"#;
const HEALTH: &str = r#"#!/bin/sh
answer=$(redis-cli -h "${REDIS_HOST:-redis}" -a "$REDIS_PASSWORD" --no-auth-warning PING 2>&1)
[ "$answer" = PONG ] && printf 'Status: 200 OK\r\n\r\nok\n' || printf 'Status: 503 Service Unavailable\r\n\r\n%s\n' "$answer"
"#;

fn journal_api() -> Result<Layer> {
    let mut layer = Layer::default();
    with_glibc(&mut layer)?.host(&["/usr/bin/redis-cli"])?;
    layer.file("srv/cgi-bin/journal", JOURNAL, 0o755);
    layer.file("srv/cgi-bin/health", HEALTH, 0o755);
    Ok(layer)
}
