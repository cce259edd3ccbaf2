import { changeTokens } from '../../auth/token-store.ts'
import { plain } from '../../terminal.ts'
import { type Command, defineCommand } from '../command.ts'
import { Failure } from '../errors.ts'
import { asFileFailure, fileOption, tokenFile } from './file.ts'

/** `spillway token revoke`. */
export const revoke: Command = defineCommand({
  name: 'revoke',
  summary: 'Take a token out of a file. Whoever uses it is refused from then on.',
  usage: ['spillway token revoke <id> [options]'],
  options: fileOption,
  operand: '<id>',
  notes: [
    '<id> is what `spillway token list` shows: the part of the token between its underscores.',
    'A server that runs with the file ends the streams that the token opened.',
  ],
  examples: ['spillway token revoke 1f0c8d5a92b7e364'],
  async run(values, id) {
    // Some will give the whole token. It must neither be refused nor shown.
    const wanted = /^spw_([0-9a-z]+)_/.exec(id)?.[1] ?? id
    const file = tokenFile(values.file)
    let name = ''
    try {
      await changeTokens(file, (document) => {
        const token = document.tokens.find((known) => known.id === wanted)
        if (!token) throw new Failure(`${file} has no token with this id. \`spillway token list\` shows those it has.`)
        name = token.name
        return { ...document, tokens: document.tokens.filter((known) => known !== token) }
      })
    } catch (error) {
      throw asFileFailure(error)
    }
    process.stderr.write(`Token ${wanted} (${plain(name)}) is revoked.\n`)
    return 0
  },
})
