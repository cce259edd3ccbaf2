import { type Command, table } from './command.ts'
import { nearest, quoted, UsageError } from './errors.ts'
import { create } from './token/create.ts'
import { list } from './token/list.ts'
import { revoke } from './token/revoke.ts'

const actions: ReadonlyMap<string, Command> = new Map([create, list, revoke].map((action) => [action.name, action]))

/** `spillway token`. */
export const token: Command = {
  name: 'token',
  summary: 'Make, list and revoke the tokens of a server.',
  help,
  async run([name, ...rest]) {
    if (name === undefined) throw new UsageError(`create, list or revoke is required.`)
    if (name === '--help' || name === '-h') {
      process.stdout.write(help())
      return 0
    }
    const action = actions.get(name)
    if (action) return action.run(rest)
    const near = nearest(name, actions.keys())
    throw new UsageError(`${quoted(name)} is not create, list or revoke.${near ? ` Did you mean ${near}?` : ''}`)
  },
}

function help(): string {
  return `${[
    token.summary,
    '',
    'Usage:',
    '  spillway token <action> [options]',
    '',
    'Actions:',
    ...table([...actions.values()].map(({ name, summary }) => [name, summary] as const)),
    '',
    'Options:',
    ...table([['-h, --help', 'Show this help; after an action, its own.']]),
    '',
    'Examples:',
    "  spillway token create --name backend --read '*' --publish Order",
    '  spillway token list',
    '  spillway token revoke 1f0c8d5a92b7e364',
  ].join('\n')}\n`
}
