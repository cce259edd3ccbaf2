// What `serve --log` refuses, with what words and which exit code, and that it shows no secret.
import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { freePort, natsPrograms } from '@spillway/engines'
import { serve as command } from '../src/cli/serve.ts'
import { nats, noNats } from './support/edges.ts'
import { folder } from './support/folder.ts'
import { Program, run, serve } from './support/program.ts'

const skip = noNats
/** No part of it looks like anything that a server says of its own accord. */
const canary = 'c4n4ry'

const nowhere = 'nats://127.0.0.1:1'
const misuse: [args: string[], message: RegExp][] = [
  [['--log', ''], /--log must be the url of a log, got ""/],
  [['--log', 'http://127.0.0.1:4222'], /--log must be nats:\/\/host:4222.*got "http:\/\/127\.0\.0\.1:4222"/],
  [['--log', `ftp://me:${canary}@127.0.0.1`], /--log must be .* not shown/],
  [['--log', `nats://me:${canary}%zz@127.0.0.1`], /--log must be .* not shown/],
  [['--log', 'nats://127.0.0.1:4222/path'], /--log must be /],
  [['--log', `nats://127.0.0.1?token=${canary}`], /--log must be .* not shown/],
  [['--log', 'nats://127.0.0.1:99999'], /--log must be /],
  [['--log', `nats://a:${canary}@h1,nats://b:${canary}@h2`], /--log must name one user/],
  [['--log', nowhere, '--memory'], /--memory does not go with --log/],
  [['--log', nowhere, '--data', 'x'], /--data does not go with --log/],
  [['--log', nowhere, '--max-age', '1h'], /--max-age does not go with --log.*--keep-age/],
  [['--log', nowhere, '--log-name', 'a.b'], /--log-name must be 1 to 64 letters.*got "a\.b"/],
  [['--log', nowhere, '--replicas', '6'], /--replicas must be an integer from 1 to 5; got "6"/],
  [['--log', nowhere, '--durability', 'disk'], /--durability must be process or machine or power, got "disk"/],
  [['--log', nowhere, '--monitor', `ftp://${canary}`], /--monitor must be the http or https url/],
  [['--log', nowhere, '--patience', '0'], /--patience must be milliseconds from 1/],
  [['--log', nowhere, '--keep-age', '50ms'], /--keep-age must be milliseconds from 100/],
  [['--log', nowhere, '--log-creds', '/nowhere/x.creds'], /--log-creds \/nowhere\/x\.creds cannot be read: ENOENT/],
  [['--log', nowhere, '--log-creds', import.meta.filename], /--log-creds .* holds neither credentials/],
  [['--log-name', 'x'], /--log-name is for --log/],
  [['--log-creds', 'x'], /--log-creds is for --log/],
  [['--replicas', '3'], /--replicas is for --log/],
  [['--monitor', 'http://127.0.0.1:8222'], /--monitor is for --log/],
  [['--patience', '1s'], /--patience is for --log/],
  [['--allow-old-engine'], /--allow-old-engine is for --log/],
  [['--durability', 'machine'], /--durability machine is for --log/],
  [['--memory', '--replicas', '3'], /--replicas is for --log/],
]

test('options of a log that make no sense are refused by name, and an engine that stays away is named at last', async (t) => {
  const away = refused(
    t,
    ['--log', `nats://me:${canary}@127.0.0.1:1`],
    /No nats-server answers at nats:\/\/127\.0\.0\.1:1/,
  )
  for (const [args, message] of misuse) {
    const wrong = command.run(['--port', '0', ...args])
    await assert.rejects(wrong, (error: Error) => {
      assert.match(error.message, message, args.join(' '))
      // Exit code 2.
      assert.equal(error.name, 'UsageError')
      assert.ok(!error.message.includes(canary), error.message)
      return true
    })
  }
  const { code, stdout, stderr } = await run(t, ['serve', '--log', `ftp://me:${canary}@127.0.0.1`])
  assert.deepEqual([code, stdout, stderr.includes(canary)], [2, '', false], stderr)
  await away
})

async function refused(t: TestContext, args: string[], message: RegExp): Promise<void> {
  const { code, stdout, stderr } = await run(t, ['serve', '--port', '0', ...args])
  assert.match(stderr, message, args.join(' '))
  assert.deepEqual([code, stdout], [1, ''])
  assert.ok(!stderr.includes(canary) && !stderr.includes('\n    at '), stderr)
}

test('an engine that is not fit is refused with what to change', { skip }, async (t) => {
  const engine = await nats(t)
  const connection = await connect({ servers: engine.url })
  const manager = await jetstreamManager(connection)
  await manager.streams.add({ name: 'orders', subjects: ['orders.>'] })
  await manager.streams.add({ name: 'other', subjects: ['spillway.taken.>'] })
  await connection.close()
  const log = ['--log', engine.url]
  await Promise.all([
    refused(
      t,
      [...log, '--log-name', 'orders'],
      /stream orders with the subjects "orders\.>" was not made by Spillway/,
    ),
    refused(t, [...log, '--log-name', 'taken'], /subjects spillway\.taken\.> are in use by another stream/),
    refused(t, [...log, '--durability', 'machine'], /3 replicas need a cluster/),
    refused(t, [...log, '--durability', 'power', '--log-name', 'p'], /needs the monitoring endpoints.*set monitor/),
    refused(
      t,
      [...log, '--durability', 'power', '--log-name', 'q', '--monitor', engine.monitor],
      /sync_interval: always/,
    ),
    refused(
      t,
      [...log, '--durability', 'power', '--monitor', `http://127.0.0.1:${await freePort()}`],
      /does not answer/,
    ),
  ])
})

test('an old engine is refused unless it is allowed', {
  skip:
    skip || (natsPrograms().some(({ version }) => version.startsWith('2.9.')) ? false : 'there is no old nats-server'),
}, async (t) => {
  const { program = '' } = natsPrograms().find(({ version }) => version.startsWith('2.9.')) ?? {}
  const engine = await nats(t, { program })
  await refused(t, ['--log', engine.url], /version 2\.9\.\d+; before 2\.10\.23 clusters lost.*Update it/)
  await serve(t, '--log', engine.url, '--allow-old-engine')
})

test('an engine that does not answer is waited for, until it does or the server is told to end', {
  skip,
}, async (t) => {
  const port = await freePort()
  const server = new Program(t, ['serve', '--port', '0', '--log', `nats://me:${canary}@127.0.0.1:${port}`])
  await server.stderr.line(/The log cannot be opened yet.*No nats-server answers at nats:\/\/127\.0\.0\.1:\d+/)
  const other = new Program(t, ['serve', '--port', '0', '--log', `nats://127.0.0.1:${await freePort()}`])
  await other.stderr.line(/The log cannot be opened yet/)
  other.kill('SIGTERM')
  assert.equal(await other.ended, 0)
  await nats(t, { port })
  await server.stdout.line(/history +in stream spillway at nats:\/\/127\.0\.0\.1:\d+$/)
  assert.ok(!(server.stdout.text + server.stderr.text).includes(canary))
})

test('who asks is told by the url, by SPILLWAY_LOG or by a file, and is shown nowhere', { skip }, async (t) => {
  // A user of no engine but this one.
  const nkey = 'UDD6IBJOAQYEOYBZOVCR5TOHPZKKGKOU7KKDLTEDOVVKJLALDDAQI2MJ'
  const seed = 'SUABKM2NZQWSAITRB35UJDRYSBH4LVRK4ZQ26IV3BCKPS2HJDJA5PTWDMA'
  const engine = await nats(t, {
    config: `authorization { users: [ { user: me, password: "${canary}" }, { nkey: ${nkey} } ] }`,
  })
  const withUser = engine.url.replace('//', `//me:${canary}@`)
  const file = path.join(await folder(t), 'user.nk')
  await writeFile(file, `${seed}\n`)
  await chmod(file, 0o600)
  await refused(t, ['--log', engine.url], /refuses these credentials/)
  await refused(t, ['--log', engine.url.replace('//', `//me:${canary}no@`)], /refuses these credentials/)
  const { server } = await serve(t, '--log', withUser, '--json')
  await serve(t, '--log', engine.url, '--log-creds', file)
  const byEnvironment = new Program(t, ['serve', '--port', '0', '--json'], { env: { SPILLWAY_LOG: withUser } })
  await byEnvironment.stdout.line(/"history":"stream spillway at nats:\/\/127/)
  for (const program of [server, byEnvironment]) {
    program.kill('SIGTERM')
    await program.ended
    assert.ok(!(program.stdout.text + program.stderr.text).includes(canary))
  }
})

test('an account without JetStream is refused with what to change', { skip }, async (t) => {
  const engine = await nats(t, {
    config: `accounts { A: { users: [ { user: me, password: "${canary}" } ] } }`,
  })
  const url = engine.url.replace('//', `//me:${canary}@`)
  await refused(t, ['--log', url], /Enable JetStream for this account/)
})
