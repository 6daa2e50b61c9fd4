//! Services as traits.

/// Makes of the methods of a service the trait that a server implements, and the client that calls
/// them.
///
#[cfg_attr(feature = "rpc-json", doc = "```")]
#[cfg_attr(not(feature = "rpc-json"), doc = "```ignore")]
/// use std::time::Duration;
///
/// use millstream::Engine;
/// use millstream::rpc::{Call, Client, Encoding, Router, Server, Status, TypedReply};
///
/// millstream::rpc::service! {
///     /// Accounts of a bank.
///     pub trait Bank in "demo.Bank" {
///         /// What is left.
///         idempotent fn balance(account: String) -> u64;
///         /// Takes from one account what it gives to another.
///         fn transfer(from: String, to: String, amount: u64);
///         /// Closes the year, which takes a while.
///         later fn close_year(year: u16) -> Vec<String>;
///     }
///
///     /// Calls a [`Bank`].
///     pub struct BankClient;
/// }
///
/// /// Why a bank says no.
/// enum BankError {
///     NoAccount(String),
/// }
///
/// impl From<BankError> for Status {
///     fn from(error: BankError) -> Status {
///         match error {
///             BankError::NoAccount(name) => Status::not_found(format!("no account {name:?}")),
///         }
///     }
/// }
///
/// struct Poor;
///
/// impl Bank for Poor {
///     type Error = BankError;
///
///     fn balance(&mut self, _call: &mut Call<'_>, account: String) -> Result<u64, BankError> {
///         if account == "nobody's" { Err(BankError::NoAccount(account)) } else { Ok(0) }
///     }
///
///     fn transfer(
///         &mut self,
///         _call: &mut Call<'_>,
///         from: String,
///         _to: String,
///         _amount: u64,
///     ) -> Result<(), BankError> {
///         Err(BankError::NoAccount(from))
///     }
///
///     fn close_year(&mut self, _call: &mut Call<'_>, year: u16, reply: TypedReply<Vec<String>>) {
///         std::thread::spawn(move || reply.send(&vec![format!("{year} was a bad year")]));
///     }
/// }
///
/// let server = Server::new();
/// let engine = Engine::builder()
///     .listen("127.0.0.1:0")
///     .start(move |_| server.serve(Router::new().service(Poor.into_service())))?;
///
/// let client = Client::builder().address(engine.local_addrs()[0].to_string()).build()?;
/// let bank = BankClient::new(client, Encoding::Json);
/// assert_eq!(bank.balance("Ada".to_owned()).call()?, 0);
/// let transfer = bank.transfer("Ada".to_owned(), "Charles".to_owned(), 7);
/// let refused = transfer.timeout(Duration::from_secs(10)).call().unwrap_err();
/// assert_eq!(refused.to_string(), "NOT_FOUND: no account \"Ada\"");
/// assert_eq!(bank.close_year(1929).call()?, ["1929 was a bad year"]);
/// # engine.stop(Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The server's side
/// Each method of the trait has `&mut self`, the [`Call`](crate::rpc::Call) with its metadata and
/// deadline, and the arguments. It returns a `Result`, whose error is the trait's `Error`, anything
/// that becomes a [`Status`](crate::rpc::Status). A method that is marked `later` returns nothing;
/// it is given a [`TypedReply`](crate::rpc::TypedReply) to do so from any thread. `into_service`
/// makes the [`Service`](crate::rpc::Service) that [`Router::service`](crate::rpc::Router::service)
/// takes.
///
/// # The client's side
/// The client is made of a [`Client`](crate::rpc::Client) and an
/// [`Encoding`](crate::rpc::Encoding). Each of its methods takes the arguments and returns a
/// [`TypedRequest`](crate::rpc::TypedRequest), which is given a timeout or metadata, and then
/// called: `call()` waits, `.await` and `start()` make a future of it, and `call_then` calls back.
/// A method that is marked `idempotent` may be [tried again](crate::rpc::Request::idempotent).
///
/// # On the wire
/// A method's name is that of the service, `/`, and that of the function. The request is the
/// sequence of the [`Arguments`](crate::rpc::Arguments), up to 16, so they go by their order; the
/// response is the value. Arguments and values need serde's `Serialize` and `DeserializeOwned`.
///
/// # As it grows
/// Methods can be added, and servers are to know them before clients call them. What else does not
/// break callers depends on the encoding:
///
/// | change | postcard | MessagePack, JSON |
/// | --- | --- | --- |
/// | another argument at the end, an `Option` | breaks | `None` for clients that don't send it |
/// | another field of a struct, with `#[serde(default)]` | breaks | the default; skipped if not known |
/// | another variant of an enum, at the end | breaks peers that don't know it | the same |
/// | another name of an argument | nothing | nothing |
/// | another name of a field | nothing | breaks |
///
/// In each case servers are to be updated first. For anything else, and for postcard, a method of
/// another name is added, and the old one kept as long as somebody calls it.
#[doc(hidden)] // Here; `rpc::service` has it.
#[macro_export]
macro_rules! __rpc_service {
    (
        $(#[$attr:meta])*
        $vis:vis trait $Service:ident in $service:literal {
            $(
                $(#[$method_attr:meta])*
                $($word:ident)+ ($($name:ident: $Type:ty),* $(,)?) $(-> $Response:ty)?;
            )*
        }

        $(#[$client_attr:meta])*
        $client_vis:vis struct $Client:ident;
    ) => {
        $(#[$attr])*
        $vis trait $Service {
            /// What a method fails with: [`Status`]($crate::rpc::Status), or what becomes one.
            type Error: Into<$crate::rpc::Status>;

            $(
                $crate::__rpc_service_part! {
                    @trait [$($method_attr)*] [$($word)+] [$($name: $Type),*]
                    [$crate::__rpc_service_part!(@response $($Response)?)]
                }
            )*

            /// Makes a service of it, which a router can have.
            fn into_service(self) -> $crate::rpc::Service<Self>
            where
                Self: Sized + 'static,
            {
                let service = $crate::rpc::Service::new($service, self);
                $(
                    let service =
                        $crate::__rpc_service_part!(@register service [$($word)+] [$($name: $Type),*]);
                )*
                service
            }
        }

        $(#[$client_attr])*
        #[allow(dead_code)] // Not every program has both sides.
        $client_vis struct $Client<M = ()> {
            client: $crate::rpc::Client<M>,
            encoding: $crate::rpc::Encoding,
        }

        impl<M> ::core::clone::Clone for $Client<M> {
            fn clone(&self) -> Self {
                $Client { client: self.client.clone(), encoding: self.encoding }
            }
        }

        impl<M> ::core::fmt::Debug for $Client<M> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(stringify!($Client))
                    .field("client", &self.client)
                    .field("encoding", &self.encoding)
                    .finish()
            }
        }

        #[allow(dead_code)]
        impl<M: $crate::rpc::Middleware> $Client<M> {
            /// Calls by this client, with values that are encoded like this.
            $client_vis fn new(
                client: $crate::rpc::Client<M>,
                encoding: $crate::rpc::Encoding,
            ) -> Self {
                $Client { client, encoding }
            }

            $(
                $crate::__rpc_service_part! {
                    @client $service [$($method_attr)*] [$client_vis $($word)+] false
                    [$($name: $Type),*] [$crate::__rpc_service_part!(@response $($Response)?)]
                }
            )*
        }
    };
    ($($anything:tt)*) => {
        ::core::compile_error! {
            "a service is written `pub trait Name in \"package.Name\" { fn method(argument: Type) -> \
             Response; … } pub struct NameClient;`"
        }
    };
}

/// What [`service!`](crate::rpc::service) makes of a method.
#[doc(hidden)]
#[macro_export]
macro_rules! __rpc_service_part {
    // A method of the trait.
    (@trait $attrs:tt [idempotent $($rest:ident)+] $arguments:tt $response:tt) => {
        $crate::__rpc_service_part! { @trait $attrs [$($rest)+] $arguments $response }
    };
    (@trait [$($attr:meta)*] [fn $method:ident] [$($name:ident: $Type:ty),*] [$Response:ty]) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments)]
        fn $method(
            &mut self,
            call: &mut $crate::rpc::Call<'_>,
            $($name: $Type,)*
        ) -> ::core::result::Result<$Response, Self::Error>;
    };
    (@trait [$($attr:meta)*] [later fn $method:ident] [$($name:ident: $Type:ty),*] [$Response:ty]) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments)]
        fn $method(
            &mut self,
            call: &mut $crate::rpc::Call<'_>,
            $($name: $Type,)*
            reply: $crate::rpc::TypedReply<$Response>,
        );
    };
    (@trait $attrs:tt [$($word:ident)+] $arguments:tt $response:tt) => {
        ::core::compile_error! { concat!(
            "`", stringify!($($word)+), "`: a method of a service begins with `fn name`, ",
            "`later fn name`, `idempotent fn name` or `idempotent later fn name`"
        ) }
    };

    // Adds a method to the service.
    (@register $service:ident [idempotent $($rest:ident)+] $arguments:tt) => {
        $crate::__rpc_service_part!(@register $service [$($rest)+] $arguments)
    };
    (@register $service:ident [fn $method:ident] [$($name:ident: $Type:ty),*]) => {
        $service.method(stringify!($method), |service, call| {
            let mut method = $crate::rpc::typed(
                |call, $crate::rpc::Arguments(($($name,)*)): $crate::rpc::Arguments<($($Type,)*)>| {
                    Self::$method(service, call, $($name),*).map_err(Into::into)
                },
            );
            $crate::rpc::Handler::handle(&mut method, call)
        })
    };
    (@register $service:ident [later fn $method:ident] [$($name:ident: $Type:ty),*]) => {
        $service.method(stringify!($method), |service, call| {
            let mut method = $crate::rpc::typed_later(
                |call, $crate::rpc::Arguments(($($name,)*)): $crate::rpc::Arguments<($($Type,)*)>, reply| {
                    Self::$method(service, call, $($name,)* reply);
                },
            );
            $crate::rpc::Handler::handle(&mut method, call)
        })
    };
    (@register $service:ident $words:tt $arguments:tt) => { $service };

    // A method of the client.
    (@client $service:literal $attrs:tt [$vis:vis idempotent $($rest:ident)+] $_:tt $($more:tt)*) => {
        $crate::__rpc_service_part! { @client $service $attrs [$vis $($rest)+] true $($more)* }
    };
    (@client $service:literal $attrs:tt [$vis:vis later $($rest:ident)+] $($more:tt)*) => {
        $crate::__rpc_service_part! { @client $service $attrs [$vis $($rest)+] $($more)* }
    };
    (
        @client $service:literal [$($attr:meta)*] [$vis:vis fn $method:ident] $idempotent:literal
        [$($name:ident: $Type:ty),*] [$Response:ty]
    ) => {
        $(#[$attr])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $method(
            &self,
            $($name: $Type,)*
        ) -> $crate::rpc::TypedRequest<'_, M, $crate::rpc::Arguments<($($Type,)*)>, $Response> {
            let method = concat!($service, "/", stringify!($method));
            let arguments = $crate::rpc::Arguments(($($name,)*));
            $crate::rpc::TypedRequest::new(&self.client, method, arguments, self.encoding)
                .idempotent($idempotent)
        }
    };
    (@client $($anything:tt)*) => {}; // The trait has told what is wrong.

    // The type of a response.
    (@response) => { () };
    (@response $Response:ty) => { $Response };
}
