package org.dqtoolchain.draw.app

import android.os.Handler
import android.os.Looper
import java.util.concurrent.CancellationException
import java.util.concurrent.Executors
import kotlin.math.ceil
import org.dqtoolchain.draw.DrawingException
import org.dqtoolchain.draw.DrawnPicture
import org.dqtoolchain.draw.Generator
import org.dqtoolchain.draw.Progress
import org.dqtoolchain.draw.Wish

/** How the drawing is. */
sealed interface State {
    data object Idle : State

    /** [done] of [total] calls of the network; 0 while prompts are read and programs are opened. */
    data class Drawing(val done: Int, val total: Int, val secondsLeft: Int) : State

    data object Stopping : State

    data object Done : State

    data class Failed(val text: String) : State
}

/**
 * One drawing at a time, on a thread of its own. There is one of these in the process, since there is one library: Android destroys and
 * makes screens as it likes, and a new one must show the drawing that goes on. Called, and calls, on the main thread.
 */
object DrawingModel {
    var state: State = State.Idle
        private set(value) {
            field = value
            onChange?.invoke()
        }

    /** Of the screen that shows this; null while there is none. */
    var onChange: (() -> Unit)? = null

    /** The last picture that was finished. */
    var picture: DrawnPicture? = null
        private set

    /** What was chosen last; a new screen does not know it. */
    var sampling: Sampling? = null

    val isDrawing get() = state is State.Drawing || state is State.Stopping

    private val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor()

    @Volatile private var wanted = true

    fun draw(wish: Wish) {
        if (isDrawing) return
        wanted = true
        state = State.Drawing(0, 0, 0)
        worker.execute {
            val (picture, end) = drawn(wish)
            main.post {
                if (picture != null) this.picture = picture
                state = end
            }
        }
    }

    /** Takes effect after the step that is being computed. */
    fun stop() {
        if (!isDrawing) return
        wanted = false
        state = State.Stopping
    }

    fun fail(text: String) {
        if (!isDrawing) state = State.Failed(text)
    }

    fun forgetFailure() {
        if (state is State.Failed) state = State.Idle
    }

    private fun drawn(wish: Wish): Pair<DrawnPicture?, State> =
        try {
            Generator.draw(wish, watch()) to State.Done
        } catch (_: CancellationException) {
            null to State.Idle
        } catch (error: DrawingException) {
            null to State.Failed(error.message.orEmpty())
        } catch (_: OutOfMemoryError) {
            null to State.Failed("out of memory; load one part after the other, or take a phone with more")
        }

    private fun watch(): Progress {
        var firstAt = 0L
        return Progress { done, total ->
            val now = System.nanoTime()
            if (done == 0) firstAt = now // the end of what comes before the first step
            val left = if (done == 0) 0.0 else (now - firstAt) * 1e-9 / done * (total - done)
            val state = State.Drawing(done, total, ceil(left).toInt())
            main.post { if (wanted && isDrawing) this.state = state }
            wanted
        }
    }
}
