//! Large objects in parts. An upload that fails or is dropped is aborted as far as possible;
//! what is left is invisible, and the bucket's lifecycle rule removes it.

use super::{Condition, S3Store, Written, error};
use crate::store::{ErrorKind, Result};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use image_format::names::ObjectName;

impl S3Store {
    pub(super) async fn write_parts(
        &self,
        operation: &'static str,
        name: &ObjectName,
        data: Bytes,
        condition: Condition<'_>,
    ) -> Result<Written> {
        let (object, key) = (name.to_string(), self.key(name));
        let begun = self.client.create_multipart_upload().bucket(&self.bucket).key(&key).send();
        let begun = begun.await.map_err(|error| self.refused(operation, &object, error))?;
        let Some(id) = begun.upload_id else {
            let message = "the server began an upload without an id";
            return Err(self.failed(ErrorKind::Unsupported, operation, &object, message));
        };
        let written = self.finish_parts(operation, (&object, &key), &id, data, condition).await;
        if !matches!(written, Ok(Written::Yes(_))) {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket).key(&key).upload_id(&id);
            if let Err(error) = abort.send().await {
                tracing::warn!(object, %error, "an upload could not be aborted");
            }
        }
        written
    }

    async fn finish_parts(
        &self,
        operation: &'static str,
        (object, key): (&str, &str),
        id: &str,
        data: Bytes,
        condition: Condition<'_>,
    ) -> Result<Written> {
        let mut parts = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(self.settings.part_bytes));
            let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
            let request =
                self.client.upload_part().bucket(&self.bucket).key(key).upload_id(id).part_number(number);
            let sent = self.in_time(operation, object, async {
                let sent = request.body(ByteStream::new(SdkBody::from(part))).send().await;
                sent.map_err(|error| self.refused(operation, object, error))
            });
            let part = CompletedPart::builder().part_number(number).set_e_tag(sent.await?.e_tag);
            parts.push(part.build());
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key);
        let request = request.upload_id(id).multipart_upload(all);
        let request = match condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Unchanged(tag) => request.if_match(tag),
        };
        self.in_time(operation, object, async {
            match request.send().await {
                Ok(answer) => Ok(Written::Yes(answer.e_tag)),
                Err(error) if error::condition_failed(&error) => Ok(Written::No),
                Err(error) => Err(self.refused(operation, object, error)),
            }
        })
        .await
    }
}
