//! JSON-LD contexts that somebody hosts here, for entities that use them.

use crate::kept::{document, to_json};
use crate::recorder::{hex, map};
use crate::{Effects, Hub, HubError, kinds};
use model::{Kind, Session, Value};

impl Hub {
    /// Hosts a context; gives its id.
    ///
    /// # Errors
    /// When it does not parse, nobody in particular asks, or there are too many.
    pub async fn host_context(&self, session: &Session, body: Value) -> Result<String, HubError> {
        self.may_host(session)?;
        if self.store.documents(kinds::CONTEXT).len() >= self.options.limits.contexts {
            return Err(HubError::Limit {
                name: "contexts",
                limit: self.options.limits.contexts as u64,
                remedy: "delete one that is not needed".into(),
            });
        }
        self.context(body.get("@context").unwrap_or(&Value::Null))?;
        let id = hex(&vault::random::<12>());
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
        Ok(body.ok_or_else(missing)?.to_vec())
    }

    /// Ends the hosting of a context.
    ///
    /// # Errors
    /// When there is none, or nobody in particular asks.
    pub async fn drop_context(&self, session: &Session, id: &str) -> Result<(), HubError> {
        self.may_host(session)?;
        self.hosted_context(id)?;
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
