//! What server and client tell each other when a connection begins: INFO and CONNECT, both JSON.

use serde::{Deserialize, Serialize};

/// The version of NATS whose client protocol this is. Clients look at it to know what there is.
const VERSION: &str = "2.9.10";
/// The newest form of the protocol, in which a client understands an INFO at any time.
const NEWEST: i64 = 1;

/// What the server says of itself.
#[derive(Clone, Serialize)]
pub struct Info<'a> {
    pub server_id: &'a str,
    pub server_name: &'a str,
    version: &'a str,
    proto: i64,
    headers: bool,
    /// The handshake of TLS is next.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    pub max_payload: usize,
    pub auth_required: bool,
    pub client_id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub client_ip: &'a str,
    /// The server is about to end: clients should go elsewhere.
    #[serde(rename = "ldm", skip_serializing_if = "is_false")]
    pub is_lame_duck: bool,
}

/// What a client wants, and who it is.
#[derive(Deserialize)]
#[serde(default)]
pub struct Connect {
    verbose: bool,
    pedantic: bool,
    echo: bool,
    headers: bool,
    no_responders: bool,
    protocol: i64,
    user: String,
    pass: String,
    auth_token: String,
}

/// What of it is kept.
#[derive(Clone, Copy)]
pub struct Wishes {
    /// Each operation is confirmed by +OK.
    pub verbose: bool,
    /// Subjects of messages are checked.
    pub pedantic: bool,
    /// It gets the messages that it publishes itself.
    pub echo: bool,
    pub headers: bool,
    /// It is told when nobody gets its request.
    pub no_responders: bool,
}

/// Who may connect.
#[derive(Clone)]
pub enum Credentials {
    Anyone,
    User { name: String, password: String },
    Token(String),
}

/// Of a client that never sent CONNECT.
impl Default for Wishes {
    fn default() -> Self {
        let (headers, no_responders) = (false, false);
        Wishes { verbose: true, pedantic: true, echo: true, headers, no_responders }
    }
}

impl Default for Connect {
    fn default() -> Self {
        let Wishes { verbose, pedantic, echo, headers, no_responders } = Wishes::default();
        let [user, pass, auth_token] = [const { String::new() }; 3];
        let protocol = 0;
        Connect {
            verbose,
            pedantic,
            echo,
            headers,
            no_responders,
            protocol,
            user,
            pass,
            auth_token,
        }
    }
}

impl Connect {
    /// From its JSON.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn parse(options: &[u8]) -> Result<Self, &'static str> {
        match serde_json::from_slice::<Option<Connect>>(options) {
            // An array of the values is not what is meant by JSON here.
            Ok(connect) if !options.starts_with(b"[") => Ok(connect.unwrap_or_default()),
            _ => Err("Parser Error"),
        }
    }

    /// # Errors
    /// What the client is to be told.
    pub fn wishes(&self) -> Result<Wishes, &'static str> {
        let &Connect { verbose, pedantic, echo, headers, no_responders, protocol, .. } = self;
        if !(0..=NEWEST).contains(&protocol) {
            return Err("invalid client protocol");
        }
        if no_responders && !headers {
            return Err("no responders requires headers support");
        }
        Ok(Wishes { verbose, pedantic, echo, headers, no_responders })
    }
}

impl Credentials {
    pub fn are_needed(&self) -> bool {
        !matches!(self, Credentials::Anyone)
    }

    pub fn admit(&self, client: &Connect) -> bool {
        match self {
            Credentials::Anyone => true,
            Credentials::User { name, password } => {
                is_same(name, &client.user) & is_same(password, &client.pass)
            }
            Credentials::Token(token) => is_same(token, &client.auth_token),
        }
    }
}

/// Compares in a time that tells nothing of where two texts differ.
fn is_same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    let differences = pairs.fold(0, |differences, (one, other)| differences | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Info<'a> {
    pub fn new(server_id: &'a str, max_payload: usize, credentials: &Credentials) -> Self {
        Info {
            server_id,
            server_name: "millstream",
            version: VERSION,
            proto: NEWEST,
            headers: true,
            tls_required: false,
            max_payload,
            auth_required: credentials.are_needed(),
            client_id: 0,
            client_ip: "",
            is_lame_duck: false,
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // It is all text and numbers.
    }
}

#[test]
fn wishes_have_the_defaults_of_nats() {
    let wishes = |text: &[u8]| Connect::parse(text).and_then(|connect| connect.wishes());
    let Ok(default) = wishes(b"{}") else { panic!("{{}} is right") };
    assert!(default.verbose && default.pedantic && default.echo && !default.headers);
    let Ok(all) =
        wishes(b"{\"verbose\":false,\"headers\":true,\"no_responders\":true,\"lang\":\"x\"}")
    else {
        panic!("it is right");
    };
    assert!(!all.verbose && all.headers && all.no_responders);
    assert!(wishes(b"null").is_ok());
    for wrong in [&b""[..], b"{", b"[]", b"{\"verbose\":\"yes\"}", b"{} x", b"\xff"] {
        assert_eq!(wishes(wrong).err(), Some("Parser Error"), "{}", wrong.escape_ascii());
    }
    assert_eq!(wishes(b"{\"protocol\":7}").err(), Some("invalid client protocol"));
    assert!(wishes(b"{\"no_responders\":true}").is_err());
}

#[test]
fn only_the_right_credentials_are_admitted() {
    let client = |user: &str, pass: &str, token: &str| Connect {
        user: user.to_owned(),
        pass: pass.to_owned(),
        auth_token: token.to_owned(),
        ..Connect::default()
    };
    let user = Credentials::User { name: "ann".to_owned(), password: "secret".to_owned() };
    assert!(user.admit(&client("ann", "secret", "")));
    for (name, password) in [("ann", "secreT"), ("ann", ""), ("bob", "secret"), ("ann", "secret1")]
    {
        assert!(!user.admit(&client(name, password, "")), "{name} {password}");
    }
    let token = Credentials::Token("t".to_owned());
    assert!(token.admit(&client("", "", "t")) && !token.admit(&client("t", "t", "")));
    assert!(Credentials::Anyone.admit(&client("", "", "")));
}
