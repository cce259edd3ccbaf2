import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { root } from '../lib.mjs'

/** What the client may cost a page: minified and compressed, with all that it imports. docs/client.md states it. */
const mostBytes = 9216

/** The client as a page that uses nothing else would load it, in bytes. */
export async function clientSize() {
  const { outputFiles } = await build({
    stdin: {
      contents: `export { createClient } from './index.js'`,
      resolveDir: path.join(root, 'packages/spillway/dist/client'),
    },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
  })
  return gzipSync(outputFiles[0].contents, { level: 9 }).length
}

export async function checkClientSize() {
  const bytes = await clientSize()
  if (bytes <= mostBytes) return []
  return [`spillway/client has ${bytes} bytes, minified and compressed; at most ${mostBytes} are promised.`]
}
