//! `workers`: what a Worker needs to use a namespace as its KV binding.
//!
//! The rule: what is printed works as it stands, so the namespace is looked up first.

use hyper::Uri;
use littoral::Account;
use serde_json::json;

use super::connection::{AccountConnection, is_id, no_such_title};
use super::failure::Failure;
use super::print;

/// The day whose behaviour of workerd the Worker is written for; workerd refuses days that are to come.
const COMPATIBILITY_DATE: &str = "2026-01-01";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print a configuration for workerd, whose Worker has a namespace as its KV binding; it holds the token
    Config(ConfigArgs),
}

#[derive(clap::Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    at: AccountConnection,
    /// The namespace: its id or its title
    namespace: String,
    /// The name of the binding: the Worker reads env.KV
    #[arg(long, value_name = "NAME", default_value = "KV", value_parser = identifier)]
    binding: String,
    /// The Worker's script, from the folder of the configuration
    #[arg(long, value_name = "FILE", default_value = "worker.js")]
    script: String,
    /// Where workerd is to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
}

pub(super) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    let Command::Config(args) = command;
    let account = args.at.account()?;
    let server = server(args.at.connection.client()?.base_url())?;
    let namespace = find(&account, &args.namespace).await?;
    let text = Workerd {
        server,
        authorities: args.at.connection.authorities()?,
        account: account.id(),
        namespace: &namespace,
        token: args.at.connection.token()?,
        binding: &args.binding,
        script: &args.script,
        listen: &args.listen,
    }
    .to_string();
    match json {
        true => print::json(&json!({ "namespace": namespace, "binding": args.binding, "config": text })),
        false => print::bytes(text.as_bytes()),
    }
}

/// The id of a namespace that exists.
async fn find(account: &Account, wanted: &str) -> Result<String, Failure> {
    let all = account.namespaces().await?;
    // A title may look like an id; whoever has such a one means the id all the same, as everywhere.
    let found = match is_id(wanted) {
        true => all.into_iter().find(|one| one.id.eq_ignore_ascii_case(wanted)),
        false => all.into_iter().find(|one| one.title == wanted),
    };
    found.map(|found| found.id).ok_or_else(|| match is_id(wanted) {
        true => Failure::not_found(format!("the account has no namespace of the id {wanted}"))
            .hint("`littoral kv namespace list` shows which there are"),
        false => no_such_title(wanted),
    })
}

/// How workerd reaches a PoP.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// With a port.
    address: String,
    /// The name in the certificate, where TLS is spoken.
    certificate_host: Option<String>,
}

fn server(url: &str) -> Result<Server, Failure> {
    let bad = |why: &str| {
        Failure::usage(format!("workerd cannot be pointed at {url}: {why}"))
            .hint("--url (LITTORAL_URL) is the address of a PoP, such as http://127.0.0.1:8787")
    };
    let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    let host = uri.host().ok_or_else(|| bad("it names no host"))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad("it must begin with http:// or https://")),
    };
    if !matches!(uri.path(), "" | "/") {
        // workerd sends the key as the whole path, and has no setting for a prefix.
        return Err(bad("it has a path, before which workerd cannot put keys"));
    }
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let certificate_host = is_tls.then(|| host.trim_matches(['[', ']']).to_owned());
    Ok(Server { address: format!("{host}:{port}"), certificate_host })
}

/// A configuration for workerd. Its form is that of `workerd.capnp` in workerd's own repository.
struct Workerd<'a> {
    server: Server,
    /// PEM: whom to believe beside those whom browsers do.
    authorities: Option<String>,
    account: &'a str,
    namespace: &'a str,
    token: &'a str,
    binding: &'a str,
    script: &'a str,
    listen: &'a str,
}

impl std::fmt::Display for Workerd<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = |name: &str, value: &str| {
            format!("        (name = {}, value = {}),\n", quoted(name), quoted(value))
        };
        let headers = [
            header("Authorization", &format!("Bearer {}", self.token)),
            header("X-KV-Account-Id", self.account),
            header("X-KV-Namespace-Id", self.namespace),
        ]
        .concat();
        let options = format!("(injectRequestHeaders = [\n{headers}      ])");
        let authorities = match &self.authorities {
            Some(pem) => format!(", trustedCertificates = [{}]", certificates(pem).join(", ")),
            None => String::new(),
        };
        let protocol = match &self.server.certificate_host {
            None => format!("http = {options}"),
            Some(host) => format!(
                "https = (\n      options = {options},\n      tlsOptions = (trustBrowserCas = true{authorities}),\n      \
                 certificateHost = {}\n    )",
                quoted(host)
            ),
        };
        let Self { server: Server { address, .. }, binding, script, listen, .. } = self;
        let [address, binding, script, listen] = [address, *binding, *script, *listen].map(quoted);
        write!(
            f,
            "# For workerd: `workerd serve worker.capnp`. It holds a token: keep it where only workerd may read it.\n\
             using Workerd = import \"/workerd/workerd.capnp\";\n\n\
             const config :Workerd.Config = (\n  \
               services = [\n    \
                 (name = \"main\", worker = .worker),\n    \
                 (name = \"kv\", external = (address = {address}, {protocol})),\n  \
               ],\n  \
               sockets = [(name = \"http\", address = {listen}, http = (), service = \"main\")],\n\
             );\n\n\
             const worker :Workerd.Worker = (\n  \
               modules = [(name = {script}, esModule = embed {script})],\n  \
               compatibilityDate = \"{COMPATIBILITY_DATE}\",\n  \
               bindings = [(name = {binding}, kvNamespace = \"kv\")],\n\
             );\n"
        )
    }
}

/// Each certificate of a PEM text, quoted.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    pem.split_inclusive(END).filter(|text| text.ends_with(END)).map(quoted).collect()
}

/// As a text of Cap'n Proto's schema language.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// A name that can stand behind `env.` in a Worker.
fn identifier(text: &str) -> Result<String, String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$');
    let is_inner = |c: char| is_first(c) || c.is_ascii_digit();
    match text.starts_with(is_first) && text.chars().all(is_inner) {
        true => Ok(text.to_owned()),
        false => Err("use letters, digits, _ and $, and no digit first".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &str, token: &str) -> String {
        let workerd = Workerd {
            server: server(url).unwrap(),
            authorities: url
                .starts_with("https")
                .then(|| "a-----END CERTIFICATE-----\nb-----END CERTIFICATE-----\n#".to_owned()),
            account: "a1",
            namespace: "n1",
            token,
            binding: "KV",
            script: "worker.js",
            listen: "127.0.0.1:8080",
        };
        workerd.to_string()
    }

    #[test]
    fn the_configuration_names_server_namespace_and_token() {
        let text = text("http://127.0.0.1:8787", "t");
        for part in [
            "(name = \"kv\", external = (address = \"127.0.0.1:8787\", http = (injectRequestHeaders = [",
            "(name = \"Authorization\", value = \"Bearer t\"),",
            "(name = \"X-KV-Account-Id\", value = \"a1\"),",
            "(name = \"X-KV-Namespace-Id\", value = \"n1\"),",
            "sockets = [(name = \"http\", address = \"127.0.0.1:8080\", http = (), service = \"main\")],",
            "modules = [(name = \"worker.js\", esModule = embed \"worker.js\")],",
            "bindings = [(name = \"KV\", kvNamespace = \"kv\")],",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(text.matches('(').count(), text.matches(')').count());
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    #[test]
    fn a_token_cannot_end_its_text() {
        assert!(text("http://h", r#"a"b\c"#).contains(r#"value = "Bearer a\"b\\c""#));
        assert_eq!(quoted("a\nü"), "\"a\\x0aü\"");
    }

    #[test]
    fn workerd_is_pointed_at_hosts_and_ports_and_at_nothing_else() {
        let check = |url: &str, address: &str, certificate_host: Option<&str>| {
            let expected =
                Server { address: address.into(), certificate_host: certificate_host.map(str::to_owned) };
            assert_eq!(server(url).unwrap(), expected, "{url}");
        };
        check("http://127.0.0.1:8787", "127.0.0.1:8787", None);
        check("http://kv.example.net/", "kv.example.net:80", None);
        check("https://kv.example.net", "kv.example.net:443", Some("kv.example.net"));
        check("https://[::1]:8443", "[::1]:8443", Some("::1"));
        for bad in ["", "kv", "ftp://h", "http://h/path", "http://"] {
            assert!(server(bad).is_err(), "{bad}");
        }
        assert!(text("https://h", "t").contains("certificateHost = \"h\""));
        let [a, b] = ["a", "b"].map(|one| format!("\"{one}-----END CERTIFICATE-----\\x0a\""));
        let options = format!("tlsOptions = (trustBrowserCas = true, trustedCertificates = [{a}, {b}]),");
        assert!(text("https://h", "t").contains(&options), "{}", text("https://h", "t"));
    }
}
