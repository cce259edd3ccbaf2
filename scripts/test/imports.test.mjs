import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkImports, importsOf } from '../checks/imports.mjs'
import { temporaryFolder } from './temporary.mjs'

const manifest = {
  'packages/spillway/package.json': '{ "name": "spillway", "exports": { ".": "./dist/index.js", "./node": "./x.js" } }',
}

const library = (file) => `packages/spillway/src/${file}`
const server = (file) => `packages/server/src/${file}`

const right = [
  [library('core/broker.ts'), './buffer.ts'],
  [library('wire/sse.ts'), '../core/event.ts'],
  [library('http/handler.ts'), '../wire/sse.ts'],
  [library('http/node.ts'), 'node:http'],
  [library('client/connect.ts'), '../wire/sse.ts'],
  [library('log/sqlite.ts'), 'node:sqlite'],
  [library('testing/log-suite.ts'), '../log/sqlite.ts'],
  [library('index.ts'), './http/handler.ts'],
  [server('cli/serve.ts'), '../config.ts'],
  [server('cli/serve.ts'), 'spillway/node'],
  [server('log.ts'), 'pino'],
  ['bench/src/run.ts', 'rxjs'],
]

const wrong = [
  [library('core/broker.ts'), '../wire/sse.ts', /core may import from nothing outside itself only/],
  [library('core/broker.ts'), 'node:events', /may use Node/],
  [library('core/broker.ts'), 'rxjs', /no dependencies/],
  [library('core/broker.ts'), '../index.ts', /own entry point/],
  [library('core/broker.ts'), './buffer.js', /end in \.ts/],
  [library('core/broker.ts'), '../../../server/src/config.ts', /leaves its own sources/],
  [library('wire/sse.ts'), '../http/handler.ts', /wire may import from core only/],
  [library('http/handler.ts'), '../client/connect.ts', /http may import from core, wire only/],
  [library('http/handler.ts'), 'node:http', /may use Node/],
  [library('http/node.ts'), '../core/buffer.ts', /a mount never sees a buffer/],
  [library('client/connect.ts'), '../http/handler.ts', /client may import/],
  [library('log/sqlite.ts'), '../http/handler.ts', /log may import from core only/],
  [library('testing/mount-suite.ts'), '../client/connect.ts', /testing may import/],
  [library('novelty/x.ts'), '../core/event.ts', /no place in the order/],
  [library('index.ts'), '@spillway/server', /no dependencies/],
  [server('cli/serve.ts'), 'spillway/core/buffer.ts', /publishes only spillway, spillway\/node/],
  [server('cli/serve.ts'), '../../../spillway/src/index.ts', /leaves its own sources/],
  ['bench/src/run.ts', '@spillway/server', /nobody imports the server/],
  ['examples/src/a.ts', '../../packages/spillway/src/index.ts', /leaves its own sources/],
]

for (const [file, specifier] of right) {
  test(`${file} may import ${specifier}`, (t) => {
    const root = temporaryFolder(t, { ...manifest, [file]: `import { x } from '${specifier}'\n` })
    assert.deepEqual(checkImports(root), [])
  })
}

for (const [file, specifier, expected] of wrong) {
  test(`${file} may not import ${specifier}`, (t) => {
    const root = temporaryFolder(t, { ...manifest, [file]: `import { x } from '${specifier}'\n` })
    const problems = checkImports(root)
    assert.equal(problems.length, 1)
    assert.match(problems[0], expected)
    assert.ok(problems[0].startsWith(`${file} imports '${specifier}'`))
  })
}

test('wire may not await', (t) => {
  const file = library('wire/sse.ts')
  assert.deepEqual(checkImports(temporaryFolder(t, { ...manifest, [file]: '// readers await this\n' })), [])
  assert.match(
    checkImports(temporaryFolder(t, { ...manifest, [file]: 'const x = await y\n' }))[0],
    /wire\/sse\.ts awaits/,
  )
})

test('every form of import is seen, and no comment or string is taken for one', () => {
  const source = [
    "import a from 'a'",
    "import type { B } from 'b'",
    "import { c,\n  type C as D,\n} from 'c'",
    "import * as d from 'd'",
    "import e, { f } from 'e'",
    "export { g } from 'g'",
    "export * from 'h'",
    "export * as i from 'i'",
    "export type { J } from 'j'",
    "import 'k'",
    "const l = await import('l')",
    "type M = import('m').M",
    "// import { no } from 'no'",
    " * import { no } from 'no'",
    " * await import('no')",
    "const text = `import { no } from 'no'`",
    "export const from = 'no'",
  ].join('\n')
  assert.deepEqual(importsOf(source).sort(), [...'abcdeghijklm'])
})
