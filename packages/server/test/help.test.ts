import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { packageFolder } from '../src/package.ts'
import { run } from './support/program.ts'

const commands = ['serve', 'publish', 'tail', 'status', 'inspect', 'export', 'import', 'token']

test('without arguments, with help and with --help the commands are explained', async (t) => {
  for (const args of [[], ['help'], ['--help'], ['-h']]) {
    const { code, stdout, stderr } = await run(t, args)
    assert.equal(code, 0)
    assert.equal(stderr, '')
    for (const command of commands) assert.match(stdout, new RegExp(`^  ${command} `, 'm'))
    assert.match(stdout, /Examples:/)
  }
})

test('--version prints the version of the package', async (t) => {
  const { version } = JSON.parse(readFileSync(path.join(packageFolder, 'package.json'), 'utf8'))
  assert.deepEqual(await run(t, ['--version']), { code: 0, stdout: `${version}\n`, stderr: '' })
})

for (const command of commands) {
  test(`${command} --help shows usage, options and examples, and so does help ${command}`, async (t) => {
    const { code, stdout, stderr } = await run(t, [command, '--help'])
    assert.equal(code, 0)
    assert.equal(stderr, '')
    assert.match(stdout, new RegExp(`Usage:\n  spillway ${command}`))
    assert.match(stdout, /Options:\n {2}-/)
    assert.match(stdout, new RegExp(`Examples:\n  spillway ${command}`))
    for (const line of stdout.split('\n')) assert.ok(line.length <= 100, line)
    assert.equal((await run(t, ['help', command])).stdout, stdout)
  })
}

const wrong: [args: string[], message: RegExp][] = [
  [['srve'], /Unknown command "srve"\. Did you mean serve\?/],
  [['xyzzy'], /Unknown command "xyzzy"\.$/m],
  [['help', 'tial'], /Unknown command "tial"\. Did you mean tail\?/],
  [['--versoin'], /Unknown option --versoin\. Did you mean --version\?/],
  [['serve', '--prot', '1'], /Unknown option --prot\. Did you mean --port\?/],
  [['serve', '-x'], /Unknown option -x\./],
  [['serve', 'now'], /Unexpected argument "now"/],
  [['serve', '--port'], /--port needs a value/],
  [['serve', '--port', '--json'], /--port needs a value, got the option --json/],
  [['serve', '--port', '65536'], /--port must be an integer from 0 to 65535; got "65536"/],
  [['serve', '--port', '-1'], /--port must be .* got "-1"/],
  [['serve', '--port', '0x10'], /--port must be/],
  [['serve', '--port', ''], /--port must be .* got ""/],
  [['serve', '--host', ''], /--host must be an address/],
  [['serve', '--capacity', '0'], /--capacity must be an integer from 1/],
  [['serve', '--max-bytes', '5x'], /--max-bytes must be bytes .* got "5x"/],
  [['serve', '--max-age', '10y'], /--max-age must be .* such as 10s, 5m, 2h or 3d/],
  [['serve', '--heartbeat', '5m'], /--heartbeat must be milliseconds from 100 to 30000/],
  [['serve', '--stall-timeout', '0'], /--stall-timeout must be/],
  [['serve', '--max-body', '-'], /--max-body must be/],
  [['serve', '--data', ''], /--data must be a directory, got ""/],
  [['serve', '--memory', '--data', 'x'], /--data is for history on disk, --memory keeps none there/],
  [['serve', '--memory', '--keep', '5'], /--keep is for history on disk/],
  [['serve', '--max-age', '5m'], /--max-age is for --memory\. On disk it is --keep-age/],
  [['serve', '--keep-age', 'x'], /--keep-age must be milliseconds/],
  [['serve', '--durability', 'none'], /--durability must be power or process, got "none"/],
  [['inspect'], /<dir> is required/],
  [['export', 'a', 'b'], /Unexpected argument "b"/],
  [['import', '--force', 'x'], /Unknown option --force/],
  [['token'], /create, list or revoke is required/],
  [['token', 'creat'], /"creat" is not create, list or revoke\. Did you mean create\?/],
  [['token', 'create', '--read', 'T'], /--name is required/],
  [['token', 'create', '--name', 'n'], /Say what the token may do, with --policy, --read or --publish/],
  [['token', 'create', '--name', 'n', '--read', ':k'], /--read must be a topic or topic:key, got ":k"/],
  [['token', 'create', '--name', 'n', '--policy', 'p', '--namespace', 'x'], /--namespace limits --read and --publish/],
  [['token', 'create', '--name', 'n', '--read', 'T', '--expires', '0'], /--expires must be milliseconds/],
  [['token', 'revoke'], /<id> is required/],
  [['serve', '--source', 'disk'], /--source must be host or none, got "disk"/],
  [['serve', '--source', 'host', '--source', 'none'], /--source may be given once/],
  [['serve', '--json=yes'], /--json takes no value, got "yes"/],
  [['publish', '--token', 'x'], /Unknown option --token/],
  [['publish', '--type', 'T'], /--topic is required/],
  [['publish', '--topic', 'T'], /--type is required/],
  [['publish', '--index', '7'], /--topic is required/],
  [['publish', '--topic', 'T', '--type', 't', '--index', 'x'], /--index must be an integer from 1/],
  [['publish', '--topic', 'T', '--type', 't', '--payload', '{'], /--payload must be JSON, got "\{"/],
  [['publish', '--topic', 'T', '--type', 't', '--payload', '1', '--payload-file', '-'], /exclude each other/],
  [['tail', '--topic', ':k'], /--topic must be a topic or topic:key, got ":k"/],
  [['publish', '--topic', 'T', '--type', 't', '--expected', '-'], /--expected must be an integer from 0/],
  [['publish', '--topic', 'T', '--type', 't', '--id', 'a b'], /--id must be visible ASCII/],
  [['publish', '--id', 'a'], /--topic is required/],
  [['tail', '--last', '-3'], /--last must be an integer from 0/],
  [['tail', '--last', '3', '--from', 'earliest'], /--from and --last exclude each other/],
  [['tail', '--count', '0'], /--count must be an integer from 1/],
  [['tail', '--from', ''], /--from must be latest, earliest, a cursor or a time/],
  [['tail', '--json', '--pretty'], /--json and --pretty exclude each other/],
  [['tail', '--url', 'localhost:1'], /--url must be a URL such as/],
  [['status', '--url', 'http://user:secret@localhost'], /--url must not hold a name or password/],
]

test('wrong usage names what is wrong on standard error and ends with 2', async (t) => {
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await run(t, args)
    assert.match(stderr, message)
    assert.equal(code, 2, args.join(' '))
    assert.equal(stdout, '')
    assert.match(stderr, /Run `spillway.* --help`/)
    assert.doesNotMatch(stderr, /secret|\n\s+at /)
  }
})

test('a bad SPILLWAY_URL is named as such, and the option wins over it', async (t) => {
  const env = { SPILLWAY_URL: 'nowhere' }
  const { code, stderr } = await run(t, ['status'], { env })
  assert.equal(code, 2)
  assert.match(stderr, /SPILLWAY_URL must be a URL/)
  assert.match((await run(t, ['status', '--url', 'ftp://x'], { env })).stderr, /--url must be a URL/)
})
