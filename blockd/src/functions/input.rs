//! What `CreateFunction` and `UpdateFunction…` say, in the JSON of the Lambda API, and its
//! check into a [`Definition`].
//!
//! Fields that would change what a function does and that this worker cannot honour are
//! refused; fields that only describe (role, tracing, …) are accepted.

use super::definition::{Definition, EventConfig, ImageConfig};
use super::destination::Destination;
use super::environment::{Environment, MAX_CONCURRENCY};
use super::error::ServiceError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// `Code` of `CreateFunction`, and the body of `UpdateFunctionCode`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct CodeInput {
    pub image_uri: Option<String>,
    pub zip_file: Option<Value>,
    pub s3_bucket: Option<Value>,
    pub publish: Option<bool>,
    pub dry_run: Option<bool>,
    pub revision_id: Option<String>,
    pub architectures: Option<Vec<String>>,
}

/// `{"Size": …}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct SizeInput {
    pub size: i64,
}

/// `{"Variables": …}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct EnvironmentInput {
    pub variables: Option<BTreeMap<String, String>>,
}

/// `{"TargetArn": …}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct TargetInput {
    pub target_arn: Option<String>,
}

/// `ImageConfig`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct ImageConfigInput {
    pub entry_point: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    pub working_directory: Option<String>,
}

/// `CapacityProviderConfig`, the part that is honoured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct CapacityInput {
    pub lambda_managed_instances_capacity_provider_config: Option<ManagedInstancesInput>,
}

/// See [`CapacityInput`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct ManagedInstancesInput {
    pub per_execution_environment_max_concurrency: Option<i64>,
}

/// What `CreateFunction` and `UpdateFunctionConfiguration` have in common.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct ConfigurationInput {
    pub role: Option<String>,
    pub description: Option<String>,
    pub timeout: Option<i64>,
    pub memory_size: Option<i64>,
    pub ephemeral_storage: Option<SizeInput>,
    pub environment: Option<EnvironmentInput>,
    pub image_config: Option<ImageConfigInput>,
    pub dead_letter_config: Option<TargetInput>,
    pub capacity_provider_config: Option<CapacityInput>,
    pub revision_id: Option<String>,
    pub runtime: Option<String>,
    pub handler: Option<String>,
    pub layers: Option<Vec<Value>>,
    pub file_system_configs: Option<Vec<Value>>,
    pub vpc_config: Option<Value>,
}

/// `CreateFunction`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct CreateFunction {
    pub function_name: String,
    pub package_type: Option<String>,
    pub code: CodeInput,
    pub publish: Option<bool>,
    pub tags: Option<BTreeMap<String, String>>,
    pub architectures: Option<Vec<String>>,
    #[serde(flatten)]
    pub configuration: ConfigurationInput,
}

/// `DestinationConfig` of `PutFunctionEventInvokeConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct DestinationsInput {
    pub on_failure: Option<DestinationInput>,
    pub on_success: Option<DestinationInput>,
}

/// `{"Destination": …}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct DestinationInput {
    pub destination: Option<String>,
}

/// `PutFunctionEventInvokeConfig` and `UpdateFunctionEventInvokeConfig`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs, reason = "as the fields of the Lambda API")]
pub struct EventConfigInput {
    pub maximum_retry_attempts: Option<i64>,
    pub maximum_event_age_in_seconds: Option<i64>,
    pub destination_config: Option<DestinationsInput>,
}

fn within(name: &str, value: i64, range: std::ops::RangeInclusive<u32>) -> Result<u32, ServiceError> {
    u32::try_from(value).ok().filter(|value| range.contains(value)).ok_or_else(|| {
        ServiceError::invalid(format!(
            "1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: Member must \
             have value between {} and {}",
            range.start(),
            range.end()
        ))
    })
}

/// Text of at most `most` bytes without control characters that an OCI runtime could choke on.
fn bounded(name: &str, text: String, most: usize) -> Result<String, ServiceError> {
    if text.len() > most || text.contains('\0') {
        return Err(ServiceError::invalid(format!("{name} has at most {most} bytes and no NUL")));
    }
    Ok(text)
}

/// Most words of an entrypoint or command, and bytes of each. AWS takes 1500.
const MAX_WORDS: usize = 1500;
const MAX_WORD_BYTES: usize = 4096;
/// Most tags, as on AWS.
const MAX_TAGS: usize = 50;

fn words(name: &str, given: Vec<String>) -> Result<Vec<String>, ServiceError> {
    if given.len() > MAX_WORDS {
        return Err(ServiceError::invalid(format!("{name} has at most {MAX_WORDS} words")));
    }
    given.into_iter().map(|word| bounded(name, word, MAX_WORD_BYTES)).collect()
}

impl ImageConfigInput {
    fn check(self) -> Result<ImageConfig, ServiceError> {
        let working_directory = self.working_directory.filter(|text| !text.is_empty());
        if let Some(directory) = &working_directory
            && !directory.starts_with('/')
        {
            return Err(ServiceError::invalid(format!(
                "ImageConfig.WorkingDirectory {directory:?} must begin with /"
            )));
        }
        Ok(ImageConfig {
            entry_point: words("ImageConfig.EntryPoint", self.entry_point.unwrap_or_default())?,
            command: words("ImageConfig.Command", self.command.unwrap_or_default())?,
            working_directory: working_directory
                .map(|text| bounded("ImageConfig.WorkingDirectory", text, 1000))
                .transpose()?,
        })
    }
}

impl CodeInput {
    /// The image that is asked for.
    ///
    /// # Errors
    /// [`ServiceError`] if none is, or something else.
    pub fn image(&self) -> Result<&str, ServiceError> {
        if self.zip_file.is_some() || self.s3_bucket.is_some() {
            return Err(ServiceError::invalid(
                "functions are images here: give Code.ImageUri, not a ZIP file, and PackageType=Image",
            ));
        }
        self.image_uri.as_deref().filter(|uri| !uri.is_empty() && uri.len() <= 1024).ok_or_else(|| {
            ServiceError::invalid(
                "Code.ImageUri is missing or longer than 1024 bytes: it names an image in Lantern's store, as \
                 `flattener ls` shows it",
            )
        })
    }
}

/// Refuses `Publish`.
///
/// # Errors
/// [`ServiceError`] if it is asked for.
pub fn no_versions(publish: Option<bool>) -> Result<(), ServiceError> {
    if publish == Some(true) {
        return Err(ServiceError::invalid("versions are not kept here, only $LATEST; leave Publish out"));
    }
    Ok(())
}

/// Refuses an architecture that is not the image's.
///
/// # Errors
/// [`ServiceError`] if it is another.
pub fn check_architecture(given: Option<&[String]>, image: &str) -> Result<(), ServiceError> {
    match given {
        Some([other]) if other != image => {
            Err(ServiceError::invalid(format!("the image is for {image}, not for {other:?}")))
        }
        Some([_] | []) | None => Ok(()),
        Some(_) => Err(ServiceError::invalid("a function has one architecture")),
    }
}

impl CreateFunction {
    /// Refuses what no image makes good.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn check(&self) -> Result<(), ServiceError> {
        if self.package_type.as_deref().unwrap_or("Image") != "Image" {
            return Err(ServiceError::invalid(
                "functions are images here: set PackageType to Image and give Code.ImageUri",
            ));
        }
        no_versions(self.publish)?;
        check_tags(self.tags.as_ref())
    }
}

/// Tags within AWS's limits.
///
/// # Errors
/// [`ServiceError`].
pub fn check_tags(tags: Option<&BTreeMap<String, String>>) -> Result<(), ServiceError> {
    let Some(tags) = tags else { return Ok(()) };
    let fits = |(name, value): (&String, &String)| (1..=128).contains(&name.len()) && value.len() <= 256;
    if tags.len() > MAX_TAGS || !tags.iter().all(fits) {
        return Err(ServiceError::invalid(format!(
            "a function has at most {MAX_TAGS} tags, with names of 1 to 128 bytes and values of at most 256"
        )));
    }
    Ok(())
}

impl ConfigurationInput {
    fn refuse_others(&self) -> Result<(), ServiceError> {
        let listed = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let in_vpc = self.vpc_config.as_ref().is_some_and(|vpc| {
            vpc.get("SubnetIds").and_then(Value::as_array).is_some_and(|subnets| !subnets.is_empty())
        });
        let instead = if self.runtime.is_some() || self.handler.is_some() {
            "Runtime and Handler are for ZIP files; with an image, use ImageConfig and LANTERN_RUNTIME"
        } else if listed(&self.layers) || listed(&self.file_system_configs) {
            "Layers and FileSystemConfigs cannot be had here; put the files into the image"
        } else if in_vpc {
            "VpcConfig cannot be had here; set the environment variable LANTERN_NETWORK=bridge for a network"
        } else {
            return Ok(());
        };
        Err(ServiceError::invalid(instead))
    }

    /// Writes what is said into `definition`.
    ///
    /// # Errors
    /// [`ServiceError`] names the first field that is wrong; `definition` is then half written.
    pub fn apply(self, definition: &mut Definition) -> Result<(), ServiceError> {
        self.refuse_others()?;
        if let Some(role) = self.role {
            definition.role = bounded("Role", role, 2048)?;
        }
        if let Some(description) = self.description {
            definition.description = bounded("Description", description, 1024)?;
        }
        if let Some(seconds) = self.timeout {
            definition.timeout_seconds = within("timeout", seconds, 1..=900)?;
        }
        if let Some(mib) = self.memory_size {
            definition.memory_mib = Some(within("memorySize", mib, 128..=10_240)?);
        }
        if let Some(storage) = self.ephemeral_storage {
            definition.tmp_mib = within("ephemeralStorage.size", storage.size, 512..=10_240)?;
        }
        if let Some(environment) = self.environment {
            let variables = environment.variables.unwrap_or_default();
            Environment::parse(&variables)?;
            definition.environment = variables;
        }
        if let Some(config) = self.image_config {
            definition.image_config = config.check()?;
        }
        if let Some(target) = self.dead_letter_config {
            let arn = target.target_arn.filter(|arn| !arn.is_empty());
            Destination::parse(arn.as_deref().unwrap_or(""), &definition.name, &definition.account)?;
            definition.dead_letter = arn;
        }
        let managed = self.capacity_provider_config.unwrap_or_default();
        let managed = managed.lambda_managed_instances_capacity_provider_config.unwrap_or_default();
        if let Some(most) = managed.per_execution_environment_max_concurrency {
            let limit = u32::try_from(MAX_CONCURRENCY).expect("a small constant");
            let most = within("perExecutionEnvironmentMaxConcurrency", most, 1..=limit)?;
            definition.declared_concurrency = Some(most);
        }
        Ok(())
    }
}

impl EventConfigInput {
    /// What `definition`'s configuration for events becomes: what is said, and for the rest
    /// `before` or nothing.
    ///
    /// # Errors
    /// [`ServiceError`] names the first field that is wrong.
    pub fn check(
        self,
        definition: &Definition,
        before: Option<&EventConfig>,
        now_ms: u64,
    ) -> Result<EventConfig, ServiceError> {
        let (name, account) = (&definition.name, &definition.account);
        let destinations = self.destination_config;
        let told = destinations.is_some();
        let destinations = destinations.unwrap_or_default();
        let arn = |input: Option<DestinationInput>| -> Result<Option<String>, ServiceError> {
            let arn = input.and_then(|input| input.destination).filter(|arn| !arn.is_empty());
            Destination::parse(arn.as_deref().unwrap_or(""), name, account)?;
            Ok(arn)
        };
        let (on_failure, on_success) = (arn(destinations.on_failure)?, arn(destinations.on_success)?);
        let attempts = self.maximum_retry_attempts;
        let attempts = attempts.map(|n| within("maximumRetryAttempts", n, 0..=2)).transpose()?;
        let age = self.maximum_event_age_in_seconds;
        let age = age.map(|n| within("maximumEventAgeInSeconds", n, 60..=21_600)).transpose()?;
        let kept = |now: Option<String>, before: Option<&String>| if told { now } else { before.cloned() };
        Ok(EventConfig {
            maximum_retry_attempts: attempts.or(before.and_then(|b| b.maximum_retry_attempts)),
            maximum_event_age_seconds: age.or(before.and_then(|b| b.maximum_event_age_seconds)),
            on_failure: kept(on_failure, before.and_then(|b| b.on_failure.as_ref())),
            on_success: kept(on_success, before.and_then(|b| b.on_success.as_ref())),
            last_modified_ms: now_ms,
        })
    }
}

#[cfg(test)]
mod tests;
