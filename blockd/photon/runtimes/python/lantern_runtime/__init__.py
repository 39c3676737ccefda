"""The Python photon runtime: one warmed zygote, forked into photons.

Map, in the order in which things happen:

- `config`     what the environment says, checked once
- `system`     the few kernel calls that the standard library lacks
- `scratch`    /tmp of its own for every invocation
- `logs`       a log connection of its own for every invocation
- `loader`     finds and imports the handler, once
- `hooks`      what user code has run before the first fork, and in each photon
- `rootlogger` the root logger's handler; `imports` waits for the module
- `rehearsal`  makes photons cheap before the first fork
- `inherited`  the fork, and what photons have in place of the import's connections
- `slots`      memory shared by zygote and photons: who is busy with what
- `zygote`     forks photons ahead of need, replaces the dead, drains
- `photon`     takes invocations, calls the handler, answers
- `isolation`  what a photon puts back between two invocations
- `post`       posts the answer
- `http`       the client of the Runtime API
- `payload`    JSON, error shapes; `context` the handler's second argument

Invariants. The zygote never calls a handler and never waits for a photon. A
photon works on one invocation at a time and is the only process that answers
it, unless it died, in which case the zygote does. Modules in here import
little, and late: every module that is loaded is memory that photons may dirty.
"""
