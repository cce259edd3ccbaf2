import type { Rules } from 'spillway'
import type { KnownToken } from '../../auth/token-document.ts'
import { readTokens } from '../../auth/token-store.ts'
import { columns, plain } from '../../terminal.ts'
import { type Command, defineCommand } from '../command.ts'
import { asFileFailure, fileOption, tokenFile } from './file.ts'

/** `spillway token list`. */
export const list: Command = defineCommand({
  name: 'list',
  summary: 'Show the tokens of a file: names, rights and times, never the tokens themselves.',
  usage: ['spillway token list [options]'],
  options: { json: { type: 'boolean', help: 'Print one JSON array.' }, ...fileOption },
  examples: ['spillway token list', "spillway token list --json | jq -r '.[] | select(.expired) | .id'"],
  async run(values) {
    const { tokens } = await readTokens(tokenFile(values.file)).catch((error: unknown) => {
      throw asFileFailure(error)
    })
    const now = Date.now()
    const shown = tokens.map((token) => describe(token, now))
    process.stdout.write(values.json ? `${JSON.stringify(shown)}\n` : pretty(shown))
    return 0
  },
})

/** What `--json` prints of a token. Without the hash: nobody needs it, and what is not shown is not copied. */
interface Described {
  readonly id: string
  readonly name: string
  readonly policies: readonly string[]
  readonly read: Rules
  readonly publish: Rules
  readonly createdAt: string
  readonly expiresAt: string | null
  readonly expired: boolean
}

function describe(token: KnownToken, now: number): Described {
  const { id, name, policies = [], read = [], publish = [], createdAt, expiresAt = null } = token
  const expired = expiresAt !== null && Date.parse(expiresAt) <= now
  return { id, name, policies, read, publish, createdAt, expiresAt, expired }
}

function pretty(tokens: readonly Described[]): string {
  if (tokens.length === 0) return 'There are no tokens.\n'
  const rows = [['ID', 'NAME', 'RIGHTS', 'CREATED', 'EXPIRES'], ...tokens.map(row)]
  const widths = [0, 1, 2, 3].map((at) => Math.max(...rows.map((cells) => columns(cells[at] ?? ''))))
  const padded = (cell: string, at: number) => cell + ' '.repeat(Math.max(0, (widths[at] ?? 0) - columns(cell)))
  return rows.map((cells) => `${cells.map(padded).join('  ')}\n`).join('')
}

function row({ id, name, policies, read, publish, createdAt, expiresAt, expired }: Described): string[] {
  const own = [read.length > 0 && 'own read rules', publish.length > 0 && 'own publish rules']
  const rights = [...policies, ...own.filter((text) => text !== false)].join(', ') || 'none'
  const end = expiresAt === null ? 'never' : expired ? 'expired' : expiresAt
  return [id, name, rights, createdAt, end].map(plain)
}
