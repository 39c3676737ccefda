"""A reference implementation of what blockd offers inside a sandbox, for tests.

`api` the Runtime API, `logs` the log port, `store` the shared object store,
`wire` HTTP/1.1. One thread per connection; slow on purpose nowhere, clever
nowhere. Used by the tests and by `bench_memory.py`.
"""
