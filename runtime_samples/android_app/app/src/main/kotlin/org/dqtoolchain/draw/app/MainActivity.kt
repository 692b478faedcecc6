package org.dqtoolchain.draw.app

import android.app.Activity
import android.graphics.Bitmap
import android.os.Bundle
import android.view.View
import android.view.WindowManager
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.Spinner
import android.widget.TextView
import java.io.File
import java.io.IOException
import org.dqtoolchain.draw.BundleFacts
import org.dqtoolchain.draw.DrawingException
import org.dqtoolchain.draw.DrawnPicture
import org.dqtoolchain.draw.Generator
import org.dqtoolchain.draw.R

/** A prompt in, a picture out. */
class MainActivity : Activity() {
    private val model = DrawingModel
    private val onChange = { show() }
    private var bundles: List<File> = emptyList()
    private var facts: BundleFacts? = null
    /** Why nothing can be drawn with what lies in the folder; looked at again whenever this screen comes back. */
    private var problem: String? = null
    private var shown: DrawnPicture? = null
    private var bitmap: Bitmap? = null

    private val bundle get() = findViewById<Spinner>(R.id.bundle)
    private val prompt get() = findViewById<EditText>(R.id.prompt)
    private val negativePrompt get() = findViewById<EditText>(R.id.negative_prompt)
    private val label get() = findViewById<EditText>(R.id.label)
    private val seed get() = findViewById<EditText>(R.id.seed)
    private val sampling get() = findViewById<Spinner>(R.id.sampling)
    private val lowMemory get() = findViewById<CheckBox>(R.id.low_memory)
    private val draw get() = findViewById<Button>(R.id.draw)
    private val share get() = findViewById<Button>(R.id.share)
    private val progress get() = findViewById<ProgressBar>(R.id.progress)
    private val status get() = findViewById<TextView>(R.id.status)
    private val picture get() = findViewById<ImageView>(R.id.picture)

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        bundle.onItemSelectedListener = onChosen { look(bundles[it]) }
        sampling.onItemSelectedListener = onChosen {
            model.sampling = sampling.selectedItem as Sampling
            show()
        }
        findViewById<Button>(R.id.next_seed).setOnClickListener { seed.setText(nextSeed(seed.text.toString())) }
        draw.setOnClickListener { if (model.isDrawing) model.stop() else start() }
        share.setOnClickListener { bitmap?.let(::hand) }
    }

    /** Also when the app is opened again, where onCreate has long been: bundles may have been pushed. */
    override fun onStart() {
        super.onStart()
        model.onChange = onChange
        if (!model.isDrawing || bundles.isEmpty()) list()
        show()
    }

    override fun onStop() {
        if (model.onChange === onChange) { // another screen may have come before this one goes
            model.onChange = null
            if (!isChangingConfigurations) model.forgetFailure() // it was seen
        }
        super.onStop()
    }

    override fun onDestroy() {
        if (isFinishing && model.onChange == null) model.stop()
        super.onDestroy()
    }

    /** Shows the bundles that are there; the one that was chosen stays chosen. */
    private fun list() {
        val folder = getExternalFilesDir("bundles") // made here, so that adb may push into it
        val chosen = bundles.getOrNull(bundle.selectedItemPosition)
        bundles = folder?.let(::bundlesIn).orEmpty()
        bundle.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, bundles.map(File::getName))
        if (chosen in bundles) bundle.setSelection(bundles.indexOf(chosen))
        problem = null
        if (bundles.isEmpty()) {
            facts = null
            refuse(getString(R.string.no_bundle, folder.toString()))
        }
    }

    /** Shows what the bundle can be asked. */
    private fun look(folder: File) {
        problem = null
        facts =
            try {
                Generator.inspect(folder)
            } catch (error: DrawingException) {
                refuse(error.message.orEmpty())
                null
            }
        val samplings = facts?.samplings().orEmpty()
        val chosen = samplings.indexOf(model.sampling)
        sampling.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, samplings)
        if (chosen > 0) sampling.setSelection(chosen)
        show()
    }

    private fun refuse(text: String) {
        problem = text
        model.forgetFailure() // which is older
    }

    private fun start() {
        val facts = facts ?: return
        val form =
            PromptForm(
                bundles[bundle.selectedItemPosition],
                prompt.text.toString(),
                negativePrompt.text.toString(),
                label.text.toString(),
                seed.text.toString(),
                sampling.selectedItem as Sampling,
                lowMemory.isChecked,
            )
        try {
            model.draw(form.wish(facts))
        } catch (error: DrawingException) {
            model.fail(error.message.orEmpty())
        }
    }

    private fun hand(bitmap: Bitmap) {
        try {
            share(bitmap)
        } catch (error: IOException) {
            model.fail("the picture cannot be written: ${error.message}")
        }
    }

    private fun show() {
        val state = model.state
        val facts = facts
        prompt.visibility = visible(facts == null || facts.takesPrompt)
        negativePrompt.visibility = visible(facts?.takesPrompt == true && (sampling.selectedItem as? Sampling)?.isGuided == true)
        label.visibility = visible(facts?.takesLabel == true)
        progress.visibility = visible(model.isDrawing)
        bundle.isEnabled = !model.isDrawing
        sampling.isEnabled = !model.isDrawing
        draw.setText(if (model.isDrawing) R.string.stop else R.string.draw)
        draw.isEnabled = facts != null && state !is State.Stopping
        when (state) {
            is State.Idle -> status.text = problem.orEmpty()
            is State.Stopping -> status.setText(R.string.stopping)
            is State.Failed -> status.text = state.text
            is State.Drawing -> show(state)
            is State.Done -> status.text = problem ?: model.picture?.let(::described)
        }
        model.picture?.let(::show)
        share.isEnabled = bitmap != null && !model.isDrawing
        // A sleeping phone is a slow phone.
        if (model.isDrawing) window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        else window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
    }

    private fun show(state: State.Drawing) {
        progress.isIndeterminate = state.done == 0 || state.done == state.total
        progress.max = state.total
        progress.progress = state.done
        status.text =
            when (state.done) {
                0 -> getString(R.string.reading)
                state.total -> getString(R.string.decoding)
                else -> getString(R.string.step, state.done, state.total, state.secondsLeft)
            }
    }

    private fun described(drawn: DrawnPicture): String {
        val times = getString(R.string.done, drawn.seconds, drawn.secondsOfNetwork, drawn.peakMemory shr 20)
        return (drawn.warnings.toList() + times).joinToString("\n")
    }

    private fun show(drawn: DrawnPicture) {
        if (drawn === shown) return
        shown = drawn
        bitmap = drawn.bitmap().also(picture::setImageBitmap)
    }

    private fun visible(whether: Boolean) = if (whether) View.VISIBLE else View.GONE

    private fun onChosen(then: (Int) -> Unit) =
        object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = then(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
}
