//! What both ends agree on (RFC 7692, section 7.1).

use std::fmt::Write;

use super::offer::{self, FIELD, Malformed, NAME, Parameters};
use super::{LEAST_BITS, MOST_BITS, PerMessageDeflate};

/// The field in which extensions are offered and agreed on.
pub(in crate::websocket) const EXTENSIONS: &str = FIELD;

impl PerMessageDeflate {
    /// The first of a client's offers that can be taken: what both do then, and what the client is
    /// told.
    pub(in crate::websocket) fn accept<'a>(
        &self,
        request: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<(Self, String)>, Malformed> {
        let offers = offer::read(request)?;
        Ok(offers.iter().find_map(|offer| self.answer(offer.parameters()?)))
    }

    fn answer(&self, offered: Parameters) -> Option<(Self, String)> {
        let mut agreed = *self;
        agreed.send.bits = self.send.bits.min(offered.server_bits.unwrap_or(MOST_BITS));
        agreed.send.keeps_context &= !offered.server_no_context;
        agreed.receive.keeps_context &= !offered.client_no_context;
        let client_bits = match offered.client_bits {
            Some(bits) => self.receive.bits.min(bits.unwrap_or(MOST_BITS)),
            None => MOST_BITS,
        };
        if agreed.send.bits < LEAST_BITS || client_bits > self.receive.bits {
            return None;
        }
        agreed.receive.bits = client_bits;
        let answer = Parameters {
            server_no_context: !agreed.send.keeps_context,
            client_no_context: !agreed.receive.keeps_context,
            server_bits: Some(agreed.send.bits)
                .filter(|bits| *bits < MOST_BITS || offered.server_bits.is_some()),
            client_bits: offered
                .client_bits
                .filter(|bits| bits.is_some() || client_bits < MOST_BITS)
                .map(|_| Some(client_bits)),
        };
        Some((agreed, answer.to_text()))
    }
}

impl PerMessageDeflate {
    /// What a client offers.
    pub(in crate::websocket) fn offer(&self) -> String {
        let offer = Parameters {
            server_no_context: !self.receive.keeps_context,
            client_no_context: !self.send.keeps_context,
            server_bits: Some(self.receive.bits).filter(|bits| *bits < MOST_BITS),
            client_bits: Some(Some(self.send.bits).filter(|bits| *bits < MOST_BITS)),
        };
        offer.to_text()
    }

    /// What both do, by a server's answer to what a client offered, if it did.
    pub(in crate::websocket) fn confirm<'a>(
        offered: Option<&Self>,
        answer: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<Self>, Malformed> {
        let answer = offer::read(answer)?;
        match (offered, &answer[..]) {
            (_, []) => Ok(None),
            (Some(offered), [extension]) => {
                let answer = extension.parameters().ok_or(Malformed)?;
                offered.confirmed(answer).map(Some).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }

    /// RFC 7692, section 7.1: the server has to do what it was asked for, and may ask for more.
    fn confirmed(&self, answer: Parameters) -> Option<Self> {
        let mut agreed = *self;
        agreed.send.keeps_context &= !answer.client_no_context;
        agreed.send.bits = match answer.client_bits {
            Some(bits) => self.send.bits.min(bits?),
            None => self.send.bits,
        };
        if answer.server_no_context {
            agreed.receive.keeps_context = false;
        } else if !self.receive.keeps_context {
            return None;
        }
        agreed.receive.bits = answer.server_bits.unwrap_or(MOST_BITS);
        let is_possible = agreed.send.bits >= LEAST_BITS;
        (is_possible && agreed.receive.bits <= self.receive.bits).then_some(agreed)
    }
}

impl Parameters {
    fn to_text(self) -> String {
        let mut text = NAME.to_owned();
        for (is_there, name) in [
            (self.server_no_context, "server_no_context_takeover"),
            (self.client_no_context, "client_no_context_takeover"),
        ] {
            if is_there {
                let _ = write!(text, "; {name}"); // Writing to memory does not fail.
            }
        }
        if let Some(bits) = self.server_bits {
            let _ = write!(text, "; server_max_window_bits={bits}");
        }
        match self.client_bits {
            Some(Some(bits)) => {
                let _ = write!(text, "; client_max_window_bits={bits}");
            }
            Some(None) => text.push_str("; client_max_window_bits"),
            None => {}
        }
        text
    }
}
