//! JSON-LD contexts that somebody hosts here, for entities that use them.

use crate::kept::{document, to_json};
use crate::recorder::{hex, map};
use crate::{Effects, Hub, HubError, kinds};
use model::{Kind, Session, Value};

/// Bytes of a context.
pub const MAX_BYTES: usize = 1 << 20;

/// Who hosts a context; of those of earlier hubs that is not known.
fn owner_of(body: &[u8]) -> Option<u64> {
    let body: Value = crate::kept::from_json(body).ok()?;
    u64::try_from(body.get("owner")?.as_number()? as i64).ok()
}

impl Hub {
    /// Hosts a context; gives its id.
    ///
    /// # Errors
    /// When it does not parse, nobody in particular asks, or there are too many.
    pub async fn host_context(&self, session: &Session, body: Value) -> Result<String, HubError> {
        self.may_host(session)?;
        let context = body.get("@context").cloned().unwrap_or(Value::Null);
        let bytes = to_json(&context).len();
        if bytes > MAX_BYTES {
            let what = format!("has {bytes} bytes, and may have {MAX_BYTES}");
            return Err(ngsild::Invalid::data("/@context", what).into());
        }
        self.context(&context)?;
        let _alone = self.hosting.lock().await;
        let limits = &self.options.limits;
        let full = |name: &'static str, limit: usize| {
            let remedy = "delete one that is not needed".into();
            Err(HubError::Limit { name, limit: limit as u64, remedy })
        };
        let all = self.store.documents(kinds::CONTEXT);
        if all.len() >= limits.contexts {
            return full("contexts", limits.contexts);
        }
        let own = all.iter().filter(|(_, body)| owner_of(body) == Some(session.principal.number));
        if own.count() >= limits.contexts_each {
            return full("contexts_each", limits.contexts_each);
        }
        let id = hex(&vault::random::<12>());
        let owner = Value::Integer(session.principal.number.cast_signed());
        let body = map([("@context", context), ("owner", owner)]);
        let effects = Effects {
            documents: vec![document(kinds::CONTEXT, &id, Some(to_json(&body)))],
            detail: map([("context", Value::from(id.as_str()))]),
            ..Effects::default()
        };
        self.commit_act(session, "context.put", effects, Vec::new()).await?;
        Ok(id)
    }

    fn may_host(&self, session: &Session) -> Result<(), HubError> {
        match session.principal.kind {
            Kind::Public | Kind::Device => Err(HubError::Unauthenticated(
                "contexts are hosted for officials and apps; send a token".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Ids of the contexts hosted here.
    pub fn hosted_contexts(&self) -> Vec<String> {
        self.store.documents(kinds::CONTEXT).into_iter().map(|(id, _)| id).collect()
    }

    /// A context hosted here, as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub fn hosted_context(&self, id: &str) -> Result<Vec<u8>, HubError> {
        let body = self.store.document(kinds::CONTEXT, id);
        let missing = || HubError::NotFound(format!("there is no context `{id}` here"));
        let mut body: Value = crate::kept::from_json(&body.ok_or_else(missing)?)?;
        if let Value::Map(entries) = &mut body {
            // Whose it is, is for the hub.
            entries.retain(|(key, _)| key != "owner");
        }
        Ok(to_json(&body))
    }

    /// Ends the hosting of a context.
    ///
    /// # Errors
    /// When there is none, or nobody in particular asks.
    pub async fn drop_context(&self, session: &Session, id: &str) -> Result<(), HubError> {
        self.may_host(session)?;
        let missing = || HubError::NotFound(format!("there is no context `{id}` here"));
        let body = self.store.document(kinds::CONTEXT, id).ok_or_else(missing)?;
        if owner_of(&body) != Some(session.principal.number) && !self.may_govern(session) {
            let what = "a context is deleted by whoever hosts it, or an administrator";
            return Err(HubError::Conflict(what.into()));
        }
        let effects = Effects {
            documents: vec![document(kinds::CONTEXT, id, None)],
            detail: map([("context", Value::from(id))]),
            ..Effects::default()
        };
        self.commit_act(session, "context.delete", effects, Vec::new()).await?;
        self.contexts.write().clear();
        Ok(())
    }
}
