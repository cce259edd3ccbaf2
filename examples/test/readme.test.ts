// Every snippet of README.md runs here, so that none of them can go stale.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { EventSource } from 'eventsource'
import { printedUrl, root, runProgram, serve, snippetsOf } from './support.ts'

const reading = /curl -N /
const snippets = snippetsOf('README.md')

let server: Awaited<ReturnType<typeof serve>>
before(async () => {
  server = await serve()
})
after(() => server.stop())

test('the first program prints what README says', async () => {
  const [program = '', otherProgram = ''] = snippets('ts')
  const [expected = ''] = snippets('text')
  assert.ok(program.match(/.+/g)?.length === 12, 'the first program has 12 lines')
  assert.equal(await runProgram(program), expected)
  // A server goes on until it is closed.
  await runProgram(`${otherProgram}\nserver.close()\nawait broker.close()`)
})

test('the commands are the scripts of package.json', () => {
  const { scripts } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
  assert.match(scripts.start, /serve --source host$/)
  assert.ok(scripts.test)
  assert.deepEqual(
    snippets('sh').filter((text) => text.startsWith('npm')),
    ['npm start\n', 'npm test\n'],
  )
})

test('the command line is there once the repository is set up', async () => {
  const { stdout } = await promisify(execFile)('npx', ['--no', 'spillway', 'help'], { cwd: fileURLToPath(root) })
  for (const command of ['serve', 'publish', 'tail', 'status']) assert.match(stdout, new RegExp(`^ +${command} `, 'm'))
})

test('the curl commands follow the stream and publish', async () => {
  const commands = snippets('sh')
    .filter((text) => text.startsWith('curl'))
    .flatMap(commandsOf)
  assert.equal(commands.length, 4)
  for (const command of commands) {
    const output = await runShell(command.replaceAll(printedUrl, server.url))
    assert.match(
      output,
      reading.test(command) ? /id: |"open"|\{\}/ : /^\{"index":\d+,"cursor":"[^"]+","batches":1\}/,
      command,
    )
  }
})

test('the browser code gets the events of its topic', async () => {
  const [code = ''] = snippets('js')
  const publish =
    snippets('sh')
      .flatMap(commandsOf)
      .find((command) => command.includes(' -d ')) ?? ''
  const sources: EventSource[] = []
  class SameOrigin extends EventSource {
    constructor(path: string) {
      super(new URL(path, server.url))
      sources.push(this)
    }
  }
  const logged = new Promise<readonly { key: string }[]>((resolve) => {
    new Function('EventSource', 'console', code)(SameOrigin, { log: resolve })
  })
  await once(sources[0] as EventSource, 'open')
  await runShell(publish.replaceAll(printedUrl, server.url))
  assert.equal((await logged)[0]?.key, 'A1')
  for (const source of sources) source.close()
})

function commandsOf(text: string): string[] {
  return text.replaceAll('\\\n', '').trim().split('\n')
}

/** What a command prints; one that follows a stream is stopped at its first message. */
async function runShell(command: string): Promise<string> {
  const child = spawn('bash', ['-c', `exec ${command} --silent`], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  for await (const text of child.stdout.setEncoding('utf8')) {
    output += text
    if (reading.test(command) && output.includes('\n')) child.kill()
  }
  return output
}
